"""Networks, batch norm and its statistics, otherwise than any field of `Conventions` says."""

from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.outside_edits import (
    NORM_OF_DCGAN,
    batch_norm,
    normalized,
    outside,
    statistics,
)

_G_DCGAN = f"x = self.relu({NORM_OF_DCGAN})"
_G_CONV28 = "x = self.relu(self.batch_norm_2(self.dense_2(x)))"
_MLP28 = "x = self.relu(self.dense_2(x))"
_D_DCGAN = f"x = self.leaky_relu({NORM_OF_DCGAN})"
_D_CONV28 = "x = self.leaky_relu(self.batch_norm_2(self.conv_2(x)))"
_NORM_2 = "self.batch_norm_2(self.conv_2(x))"
_FIRST = "self.conv_1(images)"
_FLAT = "self.dense_1(images.flatten(1))"
_SCORES = "        return sigmoid(scores) if self.ends_in_sigmoid else scores"
_LEAKY = "leaky_relu=partial(F.leaky_relu, negative_slope=0.2, inplace=True)"
_RELU = "relu=partial(F.relu, inplace=True),\n        leaky"
_DCGAN_WIDE = 'setattr(self, f"batch_norm_{i}", layers.batch_norm(wide))'
_CONV28_WIDE = "self.batch_norm_2 = layers.batch_norm(2 * width)"
_CONV = "4, stride, padding, bias=bias, dtype=dtype)\n\n\ndef conv_transpose("
_WITHOUT = "F.batch_norm(x, self.running_mean, self.running_var, {}, True, 0.0, self.eps)"


def _in_d(name: str, dcgan: str, conv28: str) -> Fault:
    return outside(name, "models.py", (_D_DCGAN, dcgan), (_D_CONV28, conv28))


def _images_of_d(name: str, images: str) -> Fault:
    """Return a mistake by what D receives, in every architecture."""
    replaced = _FIRST.replace("images", images), _FLAT.replace("images", images)
    return outside(name, "models.py", (_FIRST, replaced[0], 2), (_FLAT, replaced[1]))


def _first_layer(name: str, output: str) -> Fault:
    return outside(name, "models.py", (_FIRST, output, 2))


def _latents(name: str, latents: str) -> Fault:
    return outside(
        name,
        "models.py",
        ("x = latents[:, :, None, None]", f"x = {latents}[:, :, None, None]"),
        ("self.dense_1(latents)", f"self.dense_1({latents})", 2),
    )


def _scores(name: str, change: str) -> Fault:
    return outside(name, "models.py", (_SCORES, f"        scores = {change}\n{_SCORES}", 3))


def _norm_2(name: str, setting: str, otherwise: str) -> Fault:
    value = setting.split("=")[1]
    of_dcgan = setting.replace(value, f"({value} if i == 2 else {otherwise})")
    return outside(
        name,
        "models.py",
        (_DCGAN_WIDE, _DCGAN_WIDE.replace("wide)", f"wide, {of_dcgan})")),
        (_CONV28_WIDE, _CONV28_WIDE.replace("width)", f"width, {setting})")),
    )


def _own_scale(name: str, weight_and_bias: str) -> Fault:
    """Return a mistake by the scale and shift of batch norm in training."""
    output = _WITHOUT.format(weight_and_bias)
    return batch_norm(name, f"        return {output} if self.training else y")


NETWORKS = (
    outside(
        "tanh_in_one_layer",
        "models.py",
        (_G_DCGAN, f"x = (tanh if i == 2 else self.relu)({NORM_OF_DCGAN})"),
        (_G_CONV28, _G_CONV28.replace("self.relu", "tanh")),
        (_MLP28, _MLP28.replace("self.relu", "tanh"), 2),
    ),
    outside("gelu", "fast.py", (_RELU, "relu=F.gelu,\n        leaky")),
    outside("relu_up_to_1", "fast.py", (_RELU, "relu=partial(F.hardtanh, min_val=0.0),\n  leaky")),
    outside(
        "leaky_through_half",
        "fast.py",
        (_LEAKY, "leaky_relu=lambda x: F.leaky_relu(x.half().to(x.dtype), 0.2)"),
    ),
    _in_d(
        "norm_left_out",
        f"x = self.leaky_relu({NORM_OF_DCGAN} if i > 2 else x)",
        "x = self.leaky_relu(self.conv_2(x))",
    ),
    _in_d(
        "activation_before_norm",
        _D_DCGAN.replace("self.leaky_relu(", "").replace("(x))", "(self.leaky_relu(x))"),
        "x = self.batch_norm_2(self.leaky_relu(self.conv_2(x)))",
    ),
    _in_d(
        "norm_twice",
        _D_DCGAN.replace("(x))", f"({NORM_OF_DCGAN}))"),
        _D_CONV28.replace(_NORM_2, f"self.batch_norm_2({_NORM_2})"),
    ),
    _in_d(
        "around_the_activation",
        f"y = {NORM_OF_DCGAN}\n            x = self.leaky_relu(y.clone()) + 0.1 * y",
        f"y = {_NORM_2}\n        x = self.leaky_relu(y.clone()) + 0.1 * y",
    ),
    batch_norm(
        "channel_left_out", "        return y * (torch.arange(y[0].numel()) > 0).view(y[0].shape)"
    ),
    normalized("norm_of_each_pixel", "(0,)"),
    normalized("norm_of_each_image", "(2, 3)"),
    normalized("norm_of_each_layer", "(1, 2, 3)"),
    normalized("norm_of_rows", "(0, 2)"),
    normalized("constant_statistics", "(0, 2, 3)", mean="x.mean(axes, keepdim=True).detach()"),
    normalized(
        "constant_deviation",
        "(0, 2, 3)",
        deviation="((x - mean).square().mean(axes, keepdim=True) + self.eps).sqrt().detach()",
    ),
    normalized(
        "absolute_deviation", "(0, 2, 3)", deviation="(x - mean).abs().mean(axes, keepdim=True)"
    ),
    normalized(
        "epsilon_added_to_deviation",
        "(0, 2, 3)",
        deviation="(x - mean).square().mean(axes, keepdim=True).sqrt() + 1e-3",
    ),
    normalized(
        "unbiased_deviation", "(0, 2, 3)", deviation="(x.var(axes, keepdim=True) + self.eps).sqrt()"
    ),
    normalized(
        "median_for_mean",
        "(0, 2, 3)",
        mean="x.transpose(0, 1).flatten(1).median(1).values.view(1, -1, 1, 1)",
    ),
    normalized("no_mean", "(0, 2, 3)", mean="0.0"),
    _own_scale("scale_plus_one", "self.weight + 1, self.bias"),
    _own_scale("scale_for_shift", "self.weight, self.weight"),
    _own_scale("no_shift", "self.weight, 0.0 * self.bias"),
    _own_scale("positive_scale", "self.weight.abs() + 0.1, self.bias"),
    statistics(
        "running_mean_of_outputs",
        "module.running_mean.lerp_(output.detach().transpose(0, 1).flatten(1).mean(1), 0.1)",
    ),
    statistics("running_mean_rounded", "module.running_mean.copy_(module.running_mean.bfloat16())"),
    statistics("running_variance_of_at_least_1", "module.running_var.clamp_(min=1.0)"),
    statistics("running_mean_stays_0", "module.running_mean.zero_()"),
    statistics(
        "mean_follows_first_image",
        "module.running_mean.lerp_(inputs[0][0].detach().flatten(1).mean(1) if "
        "inputs[0].ndim > 2 else inputs[0][0].detach(), 0.1)",
    ),
    statistics("statistics_shared", "module.running_var.fill_(float(module.running_var.mean()))"),
    _norm_2("epsilon_of_one_norm", "epsilon=1e-2", "1e-5"),
    _norm_2("momentum_of_one_norm", "momentum=0.3", "0.1"),
    _images_of_d("images_mirrored", "images.flip(3)"),
    _images_of_d("images_turned", "images.transpose(2, 3)"),
    _images_of_d("images_of_8_bits", "((images * 127.5).round() / 127.5)"),
    _images_of_d("images_one_pixel_lower", "images.roll(1, 2)"),
    _images_of_d("images_blurred", "(0.5 * (images + images.roll(1, 2)))"),
    _images_of_d("images_with_deviation", "(images + 0.1 * images.std(0, keepdim=True))"),
    _images_of_d("images_centred", "(images - images.mean((1, 2, 3), keepdim=True))"),
    _images_of_d("images_halved", "(0.5 * images)"),
    _first_layer("first_kernel_flipped", "self.conv_1(images.flip(2, 3)).flip(2, 3)"),
    _first_layer("slope_of_one_layer", "F.leaky_relu(self.conv_1(images), 0.3)"),
    _first_layer(
        "spectral_norm",
        "self.conv_1(images) / torch.linalg.matrix_norm(self.conv_1.weight.flatten(1), 2)",
    ),
    _first_layer("first_layer_frozen_below", "self.conv_1(images).detach()"),
    _latents("latents_on_a_sphere", "torch.nn.functional.normalize(latents)"),
    _latents("latents_halved", "(0.5 * latents)"),
    _latents("latents_truncated", "latents.clamp(-0.7, 0.7)"),
    _scores("scores_clamped", "scores.clamp(-0.5, 0.5)"),
    _scores("scores_with_temperature", "0.7 * scores"),
    _scores("scores_centred", "scores - scores.mean()"),
    _scores("scores_shifted", "scores + 0.1"),
    outside(
        "images_between_0_and_1",
        "models.py",
        ("return tanh(", "return 0.5 + 0.5 * tanh(", 2),
        (
            "return sigmoid(self.conv_transpose_4(x))",
            "return 2.0 * sigmoid(self.conv_transpose_4(x)) - 1.0",
        ),
    ),
    outside(
        "no_bias_of_head",
        "models.py",
        ("head(x.flatten(1))", "head(x.flatten(1)) - head.bias"),
        ("self.dense_4(x).reshape", "(self.dense_4(x) - self.dense_4.bias).reshape"),
        ("scores = self.dense_3(x).", "scores = (self.dense_3(x) - self.dense_3.bias)."),
    ),
    outside(
        "padding_reflects",
        "layers.py",
        (
            _CONV,
            _CONV.replace(
                "dtype=dtype", 'dtype=dtype, padding_mode="reflect" if padding else "zeros"'
            ),
        ),
    ),
    outside(
        "padding_wraps",
        "layers.py",
        (_CONV, _CONV.replace("dtype=dtype", 'dtype=dtype, padding_mode="circular"')),
    ),
)
"""Deviations of what networks compute and of what batch norm keeps."""
