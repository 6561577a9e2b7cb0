"""The file format of PyTorch: what it may hold, and that nothing else of a file is read or run."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

import funcnn as fnn
from tests.cases import largest_gap
from tests.torch_archive import Parameter, Tensor

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


PLAIN = {"weight": drawn(4, 3), "bias": drawn(4)}


def loaded(file):
    return fnn.load_torch(file, fnn.linear(3, 4))[0]


def test_a_state_dict_beside_what_else_a_script_keeps(save_torch):
    tensors = OrderedDict((name, Tensor(array)) for name, array in PLAIN.items())
    for key in ("state_dict", "model"):
        params = loaded(save_torch({"epoch": 3, key: tensors, "optimizer": [1.0]}))
        assert largest_gap(params, fnn.LinearParams(PLAIN["weight"].T, PLAIN["bias"])) == 0


def test_parameters_and_views_of_one_storage_are_tensors_too(save_torch):
    whole = Tensor(np.arange(20))
    weight = Tensor(whole.array, of=whole, offset=2, size=(4, 3), strides=(1, 4))
    bias = Tensor(whole.array, of=whole, offset=15, size=(4,), strides=(1,))
    params = loaded(save_torch({"weight": weight, "bias": bias}))
    assert largest_gap(params.kernel, np.arange(2.0, 14).reshape(3, 4)) == 0
    assert largest_gap(params.bias, np.arange(15.0, 19)) == 0
    params = loaded(save_torch({name: Parameter(array) for name, array in PLAIN.items()}))
    assert largest_gap(params, fnn.LinearParams(PLAIN["weight"].T, PLAIN["bias"])) == 0


class _Reference:
    """What PyTorch pickles by reference and is no storage."""


BROKEN = {
    "a list": ([1.0], {}, "with a list"),
    "no tensors": ({"epoch": 3}, {}, "a dictionary without named tensors"),
    "names that are numbers": ({3: drawn(4)}, {}, "a dictionary without named tensors"),
    "big-endian": (PLAIN, {"order": b"big"}, "another byte order"),
    "compressed storages": (PLAIN, {"compression": zipfile.ZIP_DEFLATED}, "storage 0 of another size than its descr"),
    "a tensor behind its storage": (
        {"weight": Tensor(drawn(4, 3), offset=1), "bias": drawn(4)},
        {},
        "a tensor beyond its storage",
    ),
    "a negative offset": ({"weight": Tensor(drawn(4, 3), offset=-1)}, {}, "a size that is no count"),
    "a size of another length": ({"weight": Tensor(drawn(4, 3), size=(12,))}, {}, "a damaged archive"),
}


@pytest.mark.parametrize(("content", "settings", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_state_dict_is_refused_with_the_reason(content, settings, message, save_torch):
    with pytest.raises(ValueError, match=rf"load_torch\(path\): expected a file of torch\.save.*{message}"):
        loaded(save_torch(content, **settings))


def test_damaged_bytes_give_the_reason_or_change_nothing(save_torch):
    """One byte flipped, missing or doubled, in the archive or in the pickle of a whole archive."""
    file, random = save_torch(PLAIN), np.random.default_rng(0)
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}

    def damaged(whole, number):
        place = int(random.integers(len(whole)))
        flipped = bytes([whole[place] ^ int(random.integers(1, 256))])
        middle = [flipped, b"", whole[place : place + 1] * 2][number % 3]
        return whole[:place] + middle + whole[place + 1 :]

    for number in range(300):
        if number % 2:
            file.write_bytes(damaged(content, number))
        else:
            with zipfile.ZipFile(file, "w") as archive:
                for name, whole in entries.items():
                    archive.writestr(name, damaged(whole, number) if name.endswith("pkl") else whole)
        try:
            params = loaded(file)
        except ValueError as error:
            assert str(error).startswith("load_torch(")  # noqa: PT017
        else:
            assert largest_gap(params, fnn.LinearParams(PLAIN["weight"].T, PLAIN["bias"])) == 0


def test_archives_of_another_form_are_refused(save_torch, tmp_path):
    def archive(**entries):
        file = tmp_path / "other.pt"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in entries.items():
                opened.writestr(f"{name}/data.pkl", content)
        return file

    class ByReference(pickle.Pickler):
        def persistent_id(self, value):
            return ("module", 1, "0", "cpu", 4) if isinstance(value, _Reference) else None

    stream = io.BytesIO()
    ByReference(stream, protocol=2).dump({"weight": _Reference()})
    with pytest.raises(ValueError, match="a reference that is no storage"):
        loaded(archive(weights=stream.getvalue()))
    with pytest.raises(ValueError, match="with 2 pickles"):
        loaded(archive(first=b"", second=b""))
    with pytest.raises(ValueError, match=rf"with a pickle of {2**26 + 1} bytes"):
        loaded(archive(weights=bytes(2**26 + 1)))
    old = tmp_path / "old.pt"
    old.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"\x80\x02M\xe9\x03.")
    with pytest.raises(ValueError, match=r"the format of PyTorch before 1\.6"):
        loaded(old)


class _Call:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_no_code_of_the_file_runs(tmp_path, capsys):
    file = tmp_path / "hostile.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"weight": _Call()}, protocol=2))
    with pytest.raises(ValueError, match=r"builtin.*print is no part of a state_dict"):
        fnn.load_torch(file, fnn.linear(3, 4))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"PK\x03\x04 broken", b"", b"\x00" * 20], ids=["zip", "empty", "zeros"])
def test_damaged_files_are_refused(content, tmp_path):
    file = tmp_path / "damaged.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        fnn.load_torch(file, fnn.linear(3, 4))
