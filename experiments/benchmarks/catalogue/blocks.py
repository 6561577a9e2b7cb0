"""Bugs inside several layers one after another: a residual network for images, and a GPT."""

import jax
import jax.numpy as jnp

import funcnn as fnn
from experiments.benchmarks.catalogue.case import Problem, normal

THEME = "blocks of layers"
SAMPLES, CLASSES = 3, 3


# A stem, and a block that halves the image: two convolutions beside a projection with stride 2, then a linear head.
CHANNELS, SIZE = 4, 6
STEM, FIRST, SECOND, SHORTCUT, HEAD = "['stem']", "['first']", "['second']", "['shortcut']", "['head']"
SCALE, OFFSET = "['scale']", "['offset']"
STRIDES = {"stem": 1, "first": 2, "second": 1, "shortcut": 2}


def residual_make(dtype):
    c = CHANNELS
    stem, first, second, shortcut, head, scale, offset, x = normal(
        dtype, 361, (3, 3, 2, c), (3, 3, c, c), (3, 3, c, c), (1, 1, c, c), (c, CLASSES), (c,), (c,),
        (SAMPLES, SIZE, SIZE, 2),
    )  # fmt: skip
    params = {"stem": stem / 3, "first": first / 3, "second": second / 3, "shortcut": shortcut, "head": head}
    return params | {"scale": 1 + scale / 3, "offset": offset / 3}, (x, jnp.array([0, 2, 1]))


def convolve(params, name, x):
    kernel = params[name]
    bias = jnp.zeros(kernel.shape[-1], kernel.dtype)
    return fnn.conv2d_forward(fnn.ConvParams(kernel, bias), x, stride=STRIDES[name])


def residual_forward(params, x):
    """The scores, and what the backward pass needs, by name."""
    saved = {}
    z, saved["stem"] = convolve(params, "stem", x)
    a, saved["relu1"] = fnn.relu_forward(z)
    z, saved["first"] = convolve(params, "first", a)
    n, saved["norm"] = fnn.group_norm_forward(fnn.NormalizationParams(params["scale"], params["offset"]), z, groups=2)
    a2, saved["silu"] = fnn.silu_forward(n)
    branch, saved["second"] = convolve(params, "second", a2)
    straight, saved["shortcut"] = convolve(params, "shortcut", a)
    a3, saved["relu2"] = fnn.relu_forward(branch + straight)
    pooled, saved["pool"] = fnn.global_avg_pool_forward(a3)
    saved |= {"pooled": pooled, "a3": a3, "branch": branch, "z": z}
    return pooled @ params["head"], saved


def residual_loss(params, x, labels):
    return fnn.softmax_cross_entropy_forward(residual_forward(params, x)[0], labels)[0]


def residual_gradient(
    into_pool=lambda saved, dpooled: fnn.global_avg_pool_backward(saved["pool"], dpooled),
    relu2=lambda saved, da: fnn.relu_backward(saved["relu2"], da),
    silu=lambda saved, da: fnn.silu_backward(saved["silu"], da),
    norm=lambda saved, dn: fnn.group_norm_backward(saved["norm"], dn),
    into_second=lambda dsum: dsum,
    into_shortcut=lambda dsum: dsum,
    second=lambda saved, dz: fnn.conv2d_backward(saved["second"], dz),
    together=lambda through_first, through_shortcut: through_first + through_shortcut,
    head=lambda saved, dscores: saved["pooled"].T @ dscores,
    answer=lambda grads: grads,
):
    def grad_fn(params, x, labels):
        scores, saved = residual_forward(params, x)
        _, residuals = fnn.softmax_cross_entropy_forward(scores, labels)
        dscores = fnn.softmax_cross_entropy_backward(residuals, jnp.ones((), scores.dtype))
        dsum = relu2(saved, into_pool(saved, dscores @ params["head"].T))
        dsecond, da2 = second(saved, into_second(dsum))
        dnorm, dz = norm(saved, silu(saved, da2))
        dfirst, through_first = fnn.conv2d_backward(saved["first"], dz)
        dshortcut, through_shortcut = fnn.conv2d_backward(saved["shortcut"], into_shortcut(dsum))
        da = together(through_first, through_shortcut)
        dstem, _ = fnn.conv2d_backward(saved["stem"], fnn.relu_backward(saved["relu1"], da))
        return answer({
            "stem": dstem.kernel, "first": dfirst.kernel, "second": dsecond.kernel, "shortcut": dshortcut.kernel,
            "head": head(saved, dscores), "scale": dnorm.scale, "offset": dnorm.bias,
        })  # fmt: skip

    return grad_fn


residual = Problem(THEME, residual_loss, residual_gradient, residual_make)


def with_flipped_kernel(saved, dz):
    dsecond, _ = fnn.conv2d_backward(saved["second"], dz)
    flipped = saved["second"]._replace(kernel=saved["second"].kernel[::-1, ::-1])
    return dsecond, fnn.conv2d_backward(flipped, dz)[1]


RESIDUAL = (
    residual.bug("resnet_shortcut_lost", {"lost_path"}, STEM, together=lambda first, shortcut: first),
    residual.bug("resnet_block_lost", {"lost_path"}, STEM, together=lambda first, shortcut: shortcut),
    residual.bug("resnet_paths_averaged", {"scaled"}, STEM, together=lambda first, shortcut: (first + shortcut) / 2),
    residual.bug(
        "resnet_projection_taken_for_identity", {"zero"}, SHORTCUT, into_shortcut=lambda dsum: 0 * dsum
    ),
    residual.bug(
        "resnet_relu_of_the_branch_alone", {"mask", "activation_derivative"}, STEM,
        relu2=lambda saved, da: jnp.where(saved["branch"] > 0, da, 0),
    ),
    residual.bug("resnet_last_relu_forgotten", {"mask", "activation_derivative"}, STEM, relu2=lambda saved, da: da),
    residual.bug(
        "resnet_pool_divided_by_the_size_before_the_stride", {"scaled"}, STEM,
        into_pool=lambda saved, dpooled: fnn.global_avg_pool_backward(saved["pool"], dpooled) / 4,
    ),
    residual.bug("resnet_kernel_flipped_in_the_block", {"kernel_flipped"}, FIRST, second=with_flipped_kernel),
    residual.bug(
        "resnet_norm_left_out", {"normalization_term", "scaled_path"}, FIRST,
        norm=lambda saved, dn: (fnn.group_norm_backward(saved["norm"], dn)[0], dn),
    ),
    residual.bug(
        "resnet_norm_with_its_statistics_fixed", {"normalization_term"}, FIRST,
        norm=lambda saved, dn: (
            fnn.group_norm_backward(saved["norm"], dn)[0],
            dn * saved["norm"].scale * jnp.repeat(saved["norm"].inverse_deviation, CHANNELS // 2, axis=2)
            .reshape(SAMPLES, 1, 1, CHANNELS),
        ),
    ),
    residual.bug(
        "resnet_silu_at_the_sum_before_the_norm", {"activation_derivative", "wrong_operand"}, FIRST,
        silu=lambda saved, da: fnn.silu_backward(fnn.silu_forward(saved["z"])[1], da),
    ),
    residual.bug(
        "resnet_scale_and_offset_swapped", {"swapped"}, SCALE,
        answer=lambda grads: grads | {"scale": grads["offset"], "offset": grads["scale"]},
    ),
    residual.bug(
        "resnet_head_by_one_position", {"wrong_operand"}, HEAD,
        head=lambda saved, dscores: saved["a3"][:, 1, 1].T @ dscores,
    ),
)  # fmt: skip


# A GPT: two blocks, whose parameters lie along a first axis, between one table as embedding and output.
VOCABULARY, TIME, FEATURES, HEADS, LAYERS = 5, 4, 4, 2, 2
TABLE, POSITIONS = "['table']", "['positions']"
QKV, PROJECT, UP, DOWN, BIAS = (f"['blocks']['{name}']" for name in ("qkv", "project", "up", "down", "bias"))


def gpt_make(dtype):
    f, n = FEATURES, LAYERS
    table, positions, qkv, project, up, bias, down, scale, offset = normal(
        dtype,
        362,
        (VOCABULARY, f),
        (TIME, f),
        (n, f, 3 * f),
        (n, f, f),
        (n, f, 6),
        (n, 6),
        (n, 6, f),
        (n, 2, f),
        (n, 2, f),
    )
    blocks = {"qkv": qkv / 1.5, "project": project / 1.5, "up": up / 1.5, "bias": bias / 2, "down": down / 1.5}
    blocks |= {"scale": 1 + scale / 4, "offset": offset / 4}
    tokens = jnp.array([[1, 3, 3, 0, 2], [4, 1, 0, 2, 2]])
    return {"table": table, "positions": positions / 2, "blocks": blocks}, (tokens[:, :-1], tokens[:, 1:])


def norm(block, number, h):
    return fnn.layer_norm_forward(fnn.NormalizationParams(block["scale"][number], block["offset"][number]), h)


def split(h):
    return h.reshape(*h.shape[:2], HEADS, -1).swapaxes(1, 2)


def join(heads):
    joined = heads.swapaxes(1, 2)
    return joined.reshape(*joined.shape[:2], -1)


def block_forward(block, h):
    saved = {"h": h}
    n1, saved["norm1"] = norm(block, 0, h)
    q, k, v = (split(part) for part in jnp.split(n1 @ block["qkv"], 3, axis=-1))
    heads, saved["attention"] = fnn.attention_forward(q, k, v, causal=True)
    h = h + join(heads) @ block["project"]
    n2, saved["norm2"] = norm(block, 1, h)
    z = n2 @ block["up"] + block["bias"]
    a, saved["gelu"] = fnn.gelu_tanh_forward(z)
    saved |= {"n1": n1, "joined": join(heads), "n2": n2, "a": a, "z": z, "qkv": (q, k, v), "middle": h}
    return h + a @ block["down"], saved


def of_layer(blocks, layer):
    return {name: leaf[layer] for name, leaf in blocks.items()}


def gpt_forward(params, tokens):
    h = params["table"][tokens] + params["positions"]
    saved = []
    for layer in range(LAYERS):
        h, of_block = block_forward(of_layer(params["blocks"], layer), h)
        saved.append(of_block)
    return h, saved, h @ params["table"].T


def gpt_loss(params, tokens, following):
    return fnn.softmax_cross_entropy_forward(gpt_forward(params, tokens)[2], following)[0]


def product_gradient(a, dz):
    return jnp.einsum("ntf,ntg->fg", a, dz)


def block_backward(
    block, saved, dh,
    skip2=lambda dh, through: dh + through,
    skip1=lambda dh, through: dh + through,
    gelu=lambda saved, da: fnn.gelu_tanh_backward(saved["gelu"], da),
    norm1=lambda saved, dn: fnn.layer_norm_backward(saved["norm1"], dn),
    norm2=lambda saved, dn: fnn.layer_norm_backward(saved["norm2"], dn),
    attention=lambda saved, dheads: fnn.attention_backward(saved["attention"], dheads),
    down=lambda block, a, dh: block["down"],
):  # fmt: skip
    dz = gelu(saved, dh @ down(block, saved["a"], dh).T)
    dnorm2, through = norm2(saved, dz @ block["up"].T)
    dmiddle = skip2(dh, through)
    parts = attention(saved, split(dmiddle @ block["project"].T))
    dqkv = jnp.concatenate([join(part) for part in parts], axis=-1)
    dnorm1, through = norm1(saved, dqkv @ block["qkv"].T)
    grads = {
        "qkv": product_gradient(saved["n1"], dqkv), "project": product_gradient(saved["joined"], dmiddle),
        "up": product_gradient(saved["n2"], dz), "bias": dz.sum(axis=(0, 1)), "down": product_gradient(saved["a"], dh),
        "scale": jnp.stack([dnorm1.scale, dnorm2.scale]), "offset": jnp.stack([dnorm1.bias, dnorm2.bias]),
    }  # fmt: skip
    return grads, skip1(dmiddle, through)


def gpt_gradient(
    targets=lambda tokens, following: following,
    table=lambda tokens, dh, output: output.at[tokens].add(dh),
    positions=lambda dh: dh.sum(axis=0),
    layers=lambda grads: grads,
    between=lambda dh, layer: dh,
    **lines,
):
    def grad_fn(params, tokens, following):
        h, saved, logits = gpt_forward(params, tokens)
        _, residuals = fnn.softmax_cross_entropy_forward(logits, targets(tokens, following))
        dlogits = fnn.softmax_cross_entropy_backward(residuals, jnp.ones((), logits.dtype))
        output, dh, of_blocks = jnp.einsum("ntv,ntf->vf", dlogits, h), dlogits @ params["table"], [None] * LAYERS
        for layer in reversed(range(LAYERS)):
            of_blocks[layer], dh = block_backward(of_layer(params["blocks"], layer), saved[layer], dh, **lines)
            dh = between(dh, layer)
        blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers(of_blocks))
        return {"table": table(tokens, dh, output), "positions": positions(dh), "blocks": blocks}

    return grad_fn


gpt = Problem(THEME, gpt_loss, gpt_gradient, gpt_make)


def uncausal_attention(saved, dheads):
    return fnn.attention_backward(fnn.attention_forward(*saved["qkv"])[1], dheads)


def scaled_by_all_features(saved, dheads):
    dq, dk, dv = fnn.attention_backward(saved["attention"], dheads)
    return dq / HEADS**0.5, dk / HEADS**0.5, dv


def values_alone(saved, dheads):
    _, _, dv = fnn.attention_backward(saved["attention"], dheads)
    return 0 * dv, 0 * dv, dv


def queries_and_keys_exchanged(saved, dheads):
    dq, dk, dv = fnn.attention_backward(saved["attention"], dheads)
    return dk, dq, dv


def without_norm(number):
    return lambda saved, dn: (fnn.layer_norm_backward(saved[number], dn)[0], dn)


GPT = (
    gpt.bug("gpt_skip_around_attention_lost", {"lost_path"}, POSITIONS, skip1=lambda dh, through: through),
    gpt.bug("gpt_skip_around_the_feed_forward_block_lost", {"lost_path"}, POSITIONS, skip2=lambda dh, through: through),
    gpt.bug("gpt_feed_forward_block_lost", {"lost_path"}, POSITIONS, skip2=lambda dh, through: dh),
    gpt.bug("gpt_skip_counted_twice", {"scaled_path"}, POSITIONS, skip2=lambda dh, through: 2 * dh + through),
    gpt.bug("gpt_second_norm_left_out", {"normalization_term", "scaled_path"}, POSITIONS, norm2=without_norm("norm2")),
    gpt.bug("gpt_first_norm_left_out", {"normalization_term", "scaled_path"}, POSITIONS, norm1=without_norm("norm1")),
    gpt.bug(
        "gpt_residuals_of_the_other_norm", {"wrong_operand", "normalization_term"}, POSITIONS,
        norm2=lambda saved, dn: fnn.layer_norm_backward(saved["norm1"], dn),
    ),
    gpt.bug("gpt_causal_mask_missing", {"mask"}, QKV, attention=uncausal_attention),
    gpt.bug("gpt_scores_scaled_by_all_features", {"scaled_path"}, POSITIONS, attention=scaled_by_all_features),
    gpt.bug("gpt_scores_taken_for_constants", {"lost_path"}, POSITIONS, attention=values_alone),
    gpt.bug(
        "gpt_queries_and_keys_exchanged", {"wrong_operand", "swapped"}, POSITIONS, attention=queries_and_keys_exchanged
    ),
    gpt.bug(
        "gpt_gelu_at_the_activation", {"activation_derivative"}, UP,
        gelu=lambda saved, da: fnn.gelu_tanh_backward(fnn.gelu_tanh_forward(saved["a"])[1], da),
    ),
    gpt.bug(
        "gpt_gelu_by_the_rule_of_silu", {"activation_derivative"}, UP,
        gelu=lambda saved, da: fnn.silu_backward(fnn.silu_forward(saved["z"])[1], da),
    ),
    gpt.bug(
        "gpt_kernel_read_after_its_update", {"updated_weights"}, UP,
        down=lambda block, a, dh: block["down"] - 0.5 * product_gradient(a, dh),
    ),
    gpt.bug(
        "gpt_table_as_output_not_counted", {"lost_use"}, TABLE,
        table=lambda tokens, dh, output: (0 * output).at[tokens].add(dh),
    ),
    gpt.bug("gpt_table_as_embedding_not_counted", {"lost_use", "unit"}, TABLE, table=lambda tokens, dh, output: output),
    gpt.bug("gpt_positions_mean_over_the_batch", {"scaled"}, POSITIONS, positions=lambda dh: dh.mean(axis=0)),
    gpt.bug(
        "gpt_targets_not_shifted", {"loss_derivative", "shifted"}, DOWN, targets=lambda tokens, following: tokens
    ),
    gpt.bug("gpt_layers_in_reverse", {"kernel_flipped"}, DOWN, layers=lambda grads: grads[::-1]),
    gpt.bug(
        "gpt_first_layer_not_trained", {"unit", "lost_path"}, DOWN,
        layers=lambda grads: [jax.tree.map(jnp.zeros_like, grads[0]), *grads[1:]],
    ),
    gpt.bug(
        "gpt_gradient_stopped_between_the_layers", {"lost_path", "lost_use"}, TABLE,
        between=lambda dh, layer: 0 * dh if layer == 1 else dh,
    ),
    gpt.bug(
        "gpt_last_layer_for_all", {"unit"}, DOWN, layers=lambda grads: [grads[-1]] * LAYERS
    ),
)  # fmt: skip

CASES = RESIDUAL + GPT
