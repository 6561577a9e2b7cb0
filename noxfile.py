"""Sessions of tests, checks and studies: ``nox`` runs tests, lint and types, ``nox -s NAME`` one session.

``nox -l`` lists them all. Each session makes its own environment; only nox has to be installed.
"""

import shutil
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
# A Python that isn't installed is skipped with a warning, in CI too.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
TEST_TOOLS = nox.project.dependency_groups(PROJECT, "test")
BENCH_TOOLS = nox.project.dependency_groups(PROJECT, "bench")
EXTRAS = "experiments,plots,report,training"
# The tests of a file share what they compile, so they go to one worker; tests/conftest.py orders the files.
WORKERS = ("--numprocesses", "2", "--dist", "loadfile")

# The tests start processes that import JAX. Where the caller's environment keeps Python from writing bytecode, each
# of them compiles every module again. It goes to nox's folder, not beside the sources.
BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(".nox", ".bytecode").resolve())}

FIVE_LINES = """
import jax, funcnn as fnn
x, y = fnn.datasets.xor()
model = fnn.mlp((2, 8, 2), activation=fnn.tanh)
trained = fnn.train(model, fnn.softmax_cross_entropy, fnn.adam(0.1), (x, y), epochs=200, key=jax.random.key(0))
assert fnn.accuracy(fnn.predict(model, trained.params, trained.state, x), y) == 1.0, trained.history.loss
"""
"""A training that a user's first environment must run."""


@nox.session
def tests(session: nox.Session) -> None:
    """The library's tests in float64, on the Python that runs nox."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run("pytest", *WORKERS, "--ignore=tests/experiments", *session.posargs, env=BYTECODE)


@nox.session(default=False)
def thorough(session: nox.Session) -> None:
    """The longer forms of what the library's tests check."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run("pytest", *WORKERS, "-m", "thorough", "tests", *session.posargs)


@nox.session(default=False)
def practice_answers(session: nox.Session) -> None:
    """Answers to the exercises and attacks on their grader, each in a process of its own."""
    session.install(".", *TEST_TOOLS)
    session.run("pytest", *WORKERS, "-m", "practice_answers", "tests/practice", *session.posargs)


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """The same on every Python of the classifiers that is installed."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run("pytest", *WORKERS, *session.posargs, env=BYTECODE)


@nox.session(default=False)
def tests_x32(session: nox.Session) -> None:
    """Layers, losses, models, optimizers and training in float32, JAX's default.

    Tests that set a precision of their own are left out (the checkers judge in float64 whatever JAX is set to), and
    so are checkpoints, which keep numbers as they are.
    """
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    in_float32 = ("layers", "optimizers", "training", "losses", "test_models.py", "test_backprop.py",
                  "test_bad_calls.py", "test_bad_input.py", "test_metrics.py", "test_preprocessing.py",
                  "test_weights.py", "test_cores.py", "test_small_matmul.py")  # fmt: skip
    paths = session.posargs or [
        *(f"tests/{name}" for name in in_float32),
        "--ignore=tests/training/test_checkpoints.py",
    ]
    session.run("pytest", *WORKERS, *paths, env={"JAX_ENABLE_X64": "0"})


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes by ruff, and the workflows by zizmor."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("zizmor", "--offline", "--quiet", ".github")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Static types, by mypy."""
    session.install(f".[{EXTRAS}]", *nox.project.dependency_groups(PROJECT, "types"))
    session.run("mypy")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The site, docs/_build/html: notebooks executed, warnings as errors; looked at where Chromium or Chrome is."""
    tools = [line for group in ("docs", "browser") for line in nox.project.dependency_groups(PROJECT, group)]
    session.install(".[experiments,report]", *tools)
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)
    session.run("pytest", "-n", "auto", "-o", "python_files=site_in_browser.py", "tests/site_in_browser.py", "-rs")


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Wheel and sdist in dist/, checked, and each installed and used in a clean environment; ``-- --version 1.2.3``."""
    version = PROJECT["project"]["version"]
    if session.posargs and session.posargs != ["--version", version]:
        session.error(f"expected --version {version}, as in pyproject.toml, got {' '.join(session.posargs)}")
    session.install(*nox.project.dependency_groups(PROJECT, "package"))
    dist = Path("dist").resolve()
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    built = sorted(map(str, dist.iterdir()))
    session.run("twine", "check", "--strict", *built)
    session.run("check-wheel-contents", str(dist))
    for file in built:
        clean = Path(session.create_tmp(), Path(file).suffix.lstrip(".")).resolve()
        session.run("python", "-m", "venv", "--clear", str(clean))
        python = str(clean / "bin" / "python")
        session.run(python, "-m", "pip", "install", "--quiet", f"{file}[report]", external=True)
        # From another folder, so that the installed package is imported and not this one.
        with session.chdir(clean):
            session.run(python, "-m", "funcnn", "--help", external=True, silent=True)
            session.run(python, "-c", FIVE_LINES, external=True)


@nox.session(default=False)
def benchmarks_smoke(session: nox.Session) -> None:
    """The studies of speed and scaling on tiny sizes, other libraries' contestants, and cold subprocesses."""
    # PyTorch is gigabytes; only `bench` and `scaling` install it.
    contestants = [line for line in BENCH_TOOLS if Requirement(line).name != "torch"]
    session.install(f".[{EXTRAS}]", *TEST_TOOLS, *contestants)
    session.run("pytest", *WORKERS, "-m", "benchmarks_smoke", "tests", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Which lines and branches of funcnn the tests reach."""
    session.install("-e", f".[{EXTRAS}]", *TEST_TOOLS)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-m", "not benchmarks_smoke", *session.posargs)
    # Cold subprocesses of funcnn's own: the check of a caller's file, and checkpoints.
    session.run("coverage", "run", "-m", "pytest", "-m", "benchmarks_smoke", "tests/gradcheck", "tests/training")
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under", "98")


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """The test suite on the lowest versions that pyproject.toml admits, on the lowest Python that is found."""
    project = PROJECT["project"]
    extras = [line for extra in EXTRAS.split(",") for line in project["optional-dependencies"][extra]]
    wanted = [*project["dependencies"], *extras, *TEST_TOOLS]
    session.install(*(_lowest(Requirement(line)) for line in wanted))
    session.install("--no-deps", ".")
    # The newest NumPy and SciPy deprecate what old releases of JAX still call; only our own warnings are errors here.
    session.run("pytest", *WORKERS, "-W", "default", *session.posargs)


def _lowest(requirement: Requirement) -> str:
    floor = next(bound.version for bound in requirement.specifier if bound.operator == ">=")
    return f"{requirement.name}=={floor}"


@nox.session(default=False)
def experiments(session: nox.Session) -> None:
    """Measure all claims of the experiments, after their tests; with arguments only those topics, without tests.

    The page is report/index.html.
    """
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    if not session.posargs:
        session.run("pytest", *WORKERS, "tests/experiments", env=BYTECODE)
    session.run("python", "-m", "experiments", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Measure all claims and open the page in a real browser: Chromium or Chrome has to be installed."""
    session.install(".[experiments]", *nox.project.dependency_groups(PROJECT, "browser"))
    session.run("python", "-m", "experiments", *session.posargs)
    session.run("pytest", "-o", "python_files=report_in_browser.py", "tests/report_in_browser.py", "-rs")


@nox.session(default=False)
def gradcheck(session: nox.Session) -> None:
    """Every hand-written gradient against autodiff, 200 random networks in each dtype, the whole catalogue of bugs."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run(
        "pytest", *WORKERS, "tests/layers/test_every_layer.py", "tests/losses", "tests/test_backprop.py",
        "tests/gradcheck/test_catalogue.py", "tests/optimizercheck/test_catalogue.py", "-m", "", *session.posargs,
        env={"HYPOTHESIS_PROFILE": "thorough", "FUNCNN_WHOLE_CATALOGUE": "1"},
    )  # fmt: skip


@nox.session(default=False)
def optax_suite(session: nox.Session) -> None:
    """Optax's own tests of its optimizers, with ours in their place."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run(
        "pytest", *WORKERS, "-o", "filterwarnings=default", "-o", "python_files=optax_suite.py", "tests/optax_suite.py",
        *session.posargs, env={"OPTAX_SUITE": "1"},
    )  # fmt: skip


@nox.session(default=False)
def torch_parity(session: nox.Session) -> None:
    """Layers, losses, models, weight files and gradient checks beside PyTorch on the CPU.

    Where the default index has only builds with CUDA, UV_TORCH_BACKEND=cpu (for pip: PIP_EXTRA_INDEX_URL with PyTorch's
    index of CPU builds) installs the smaller one.
    """
    session.install(f".[{EXTRAS}]", *TEST_TOOLS, *nox.project.dependency_groups(PROJECT, "torch"))
    session.run(
        "pytest", *WORKERS, "tests/torch_parity", "tests/optimizers/test_against_torch.py", *session.posargs,
        env={"TORCH_PARITY": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


@nox.session(default=False)
def distributed(session: nox.Session) -> None:
    """Training on eight virtual devices and in two processes, beside one device."""
    session.install(f".[{EXTRAS}]", *TEST_TOOLS)
    session.run(
        "pytest", "tests/distributed", *session.posargs,
        env={"DISTRIBUTED_SUITE": "1", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )  # fmt: skip


@nox.session(default=False)
def survival(session: nox.Session) -> None:
    """Kills, broken bytes, threads, processes on one folder, full disks, Ctrl-C: what a run survives; its memory."""
    session.install(".[experiments,training]")
    session.run("python", "-m", "experiments.benchmarks.survival", *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "experiments.benchmarks.endurance")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """How fast the same networks train here, in plain JAX, and in other libraries."""
    session.install(".[experiments]", *BENCH_TOOLS)
    session.run("python", "-m", "experiments.benchmarks.speed", *session.posargs)


@nox.session(default=False)
def kernels(session: nox.Session) -> None:
    """The rules inside JAX, Optax and other libraries, and the published wrong gradients through the pytest plugin."""
    session.install(
        ".[experiments]", *(line for line in BENCH_TOOLS if Requirement(line).name not in ("keras", "torch"))
    )
    session.run("python", "-m", "experiments.benchmarks.kernels", *session.posargs)
    session.run("python", "-m", "experiments.benchmarks.published.plugin")


@nox.session(default=False)
def scaling(session: nox.Session) -> None:
    """How cost grows: ensembles, depth, size, precision, memory, first uses, checking, two processes."""
    session.install(".[experiments]", *BENCH_TOOLS)
    for study in (
        "memory",
        "first_use",
        "ensembles",
        "depth",
        "growth",
        "precision",
        "checking",
        "first_check",
        "processes",
    ):
        session.run("python", "-m", f"experiments.benchmarks.scaling.{study}", *session.posargs)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """The test suite and the benchmarks of JAX's libraries on an NVIDIA GPU, with JAX's CUDA build."""
    session.install(f".[cuda,{EXTRAS}]", *TEST_TOOLS, "equinox>=0.13", "flax>=0.12")
    session.run("python", "-c", "import jax; assert jax.devices('gpu'), 'JAX finds no GPU'")
    on_gpu = {"JAX_PLATFORMS": "cuda"}
    session.run("pytest", *session.posargs, env=on_gpu)
    jax_alone = ("funcnn_scan", "funcnn_autodiff", "funcnn_fit", "jax_scan", "jax_step", "equinox", "flax_nnx")
    session.run("python", "-m", "experiments.benchmarks.speed", "--contestants", *jax_alone, env=on_gpu)
    session.run("python", "-m", "experiments.benchmarks.scaling.precision", env=on_gpu)
