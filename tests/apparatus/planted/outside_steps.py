"""Losses, steps, gradients and updates otherwise than any field of `Conventions` says."""

from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.outside_edits import (
    FIRST,
    MEAN,
    adam,
    after_update,
    before_update,
    gradients,
    outside,
    weights,
)

_REAL = "loss_real = loss.discriminator_real(real_scores)"
_LEARNT = 'gradients = _update(state, "discriminator", loss_real + loss_fake)'
_G_LOSS = "generator_loss = LOSSES[state.spec.loss].generator(scores)"
_G_LEARNT = 'gradients = _update(state, "generator", generator_loss)'
_G_SCORES = "scores = forward(state, state.discriminator, fake_images)"
_G_MEAN = "return self._mean(fake_scores, generator_label).to(fake_scores.dtype)"
_ONE_PASS = "real_scores, fake_scores = in_one_pass(network, scores, real_images, fake_images)"
_SCORES_OF_D = "    scores = partial(forward, state, network)\n"
_EACH = "return self.elementwise(scores, label)"
_FAKE = "fake_images = forward_generator(state, latent_batch)\n        loss_real"
_NETWORK = '    network = state.replicated.get("discriminator", state.discriminator)\n'
_COUNT = "int(next(iter(optimizer.state.values()))['step'])"
_UPDATE = "m / correction1 / ((v / correction2).sqrt() + epsilon)"


def _loss(name: str, mean: str) -> Fault:
    return outside(name, "losses.py", (MEAN, f"return {mean}"))


def _mixed(name: str, weight: str) -> Fault:
    """Return a mistake by a loss that has the other label with a weight, [batch]."""
    mixed = f"w = {weight}\n        other = self.elementwise(scores, 1.0 - label)\n        "
    return outside(
        name,
        "losses.py",
        (_EACH, f"{mixed}return (1 - w) * self.elementwise(scores, label) + w * other"),
    )


def _images_in_step(name: str, change: str) -> Fault:
    return outside(name, "train.py", (_SCORES_OF_D, f"{_SCORES_OF_D}    {change}\n"))


def _generated(name: str, change: str) -> Fault:
    """Return a mistake by G's images of a step."""
    made = _FAKE.replace("\n", f"\n        {change}\n", 1)
    return outside(name, "train.py", (_FAKE, made))


def _rate(name: str, factor: str) -> Fault:
    lines = (
        f"    number = {_COUNT}\n"
        f"    optimizer.param_groups[0]['lr'] = optimizer.defaults['lr'] * ({factor})\n"
    )
    return before_update(name, lines)


STEPS = (
    _mixed("labels_of_half_turned", "(torch.arange(len(scores)) < len(scores) // 2).to(scores)"),
    _mixed("labels_by_position", "0.1 * torch.arange(len(scores)).cos().abs().to(scores)"),
    _mixed("first_label_turned", "(torch.arange(len(scores)) == 0).to(scores)"),
    _mixed("labels_by_score", "0.2 * torch.sigmoid(scores).detach()"),
    _loss("mean_over_one_less", "self.each(scores, label).sum() / (len(scores) - 1)"),
    _loss("mean_over_one_more", "self.each(scores, label).sum() / (len(scores) + 1)"),
    _loss("sum_over_root", "self.each(scores, label).sum() / len(scores) ** 0.5"),
    _loss("loss_clipped", "self.each(scores, label).clamp(max=0.7).mean()"),
    _loss(
        "loss_of_best_half", "self.each(scores, label).topk((len(scores) + 1) // 2).values.mean()"
    ),
    _loss("log_of_mean", "self.each(scores, label).exp().mean().log()"),
    _loss("root_of_mean_square", "self.each(scores, label).square().mean().sqrt()"),
    _loss("wasserstein", "((1.0 - 2.0 * label) * scores).mean()"),
    _loss(
        "loss_weighted_by_place", "(self.each(scores, label) * torch.arange(len(scores))).mean()"
    ),
    _loss("loss_of_mean_score", "self.each(scores.mean()[None], label).mean()"),
    _loss("variance_of_scores", "self.each(scores, label).mean() + 0.01 * scores.var()"),
    _loss("flooded", "(self.each(scores, label).mean() - 0.5).abs() + 0.5"),
    outside(
        "both_objectives",
        "losses.py",
        (
            _G_MEAN,
            "return 0.5 * (self._mean(fake_scores, generator_label) - "
            "self._mean(fake_scores, fake_label))",
        ),
    ),
    outside(
        "relativistic",
        "train.py",
        (
            _REAL,
            "real_scores, fake_scores = real_scores - fake_scores.mean(), fake_scores - "
            "real_scores.mean()\n    " + _REAL,
        ),
    ),
    outside(
        "gradient_penalty",
        "train.py",
        (_NETWORK, _NETWORK + "    real_images = real_images.detach().requires_grad_()\n"),
        (
            _LEARNT,
            "slope = torch.autograd.grad(loss_real, real_images, create_graph=True)[0]\n    "
            + _LEARNT.replace("loss_fake)", "loss_fake + 10 * slope.square().sum())"),
        ),
    ),
    outside(
        "fooled_discriminator",
        "train.py",
        (_LEARNT, _LEARNT.replace("loss_fake)", "loss_fake + 0.1 * loss.generator(fake_scores))")),
    ),
    outside(
        "drift_penalty",
        "train.py",
        (_LEARNT, _LEARNT.replace("loss_fake)", "loss_fake + 1e-3 * real_scores.square().mean())")),
    ),
    outside(
        "consistent_scores",
        "train.py",
        (
            _LEARNT,
            _LEARNT.replace(
                "loss_fake)", "loss_fake + 0.1 * (real_scores - fake_scores).square().mean())"
            ),
        ),
    ),
    outside(
        "product_of_halves",
        "train.py",
        (_LEARNT, _LEARNT.replace("loss_real + loss_fake", "loss_real * loss_fake")),
    ),
    outside(
        "larger_half",
        "train.py",
        (_LEARNT, _LEARNT.replace("loss_real + loss_fake", "torch.maximum(loss_real, loss_fake)")),
    ),
    outside(
        "small_images", "train.py", (_G_LOSS, _G_LOSS + " + 0.01 * fake_images.square().mean()")
    ),
    outside(
        "small_images_unreported",
        "train.py",
        (_G_LEARNT, _G_LEARNT.replace("loss)", "loss + 0.1 * fake_images.square().mean())")),
    ),
    outside(
        "smooth_images",
        "train.py",
        (
            _G_LEARNT,
            _G_LEARNT.replace(
                "loss)", "loss + 0.1 * (fake_images - fake_images.roll(1, 3)).square().mean())"
            ),
        ),
    ),
    outside(
        "diverse_images", "train.py", (_G_LOSS, _G_LOSS + " - 0.1 * fake_images.std(0).mean()")
    ),
    outside(
        "clipped_gradient_of_images",
        "train.py",
        (
            _G_SCORES,
            "fake_images.register_hook(lambda g: g.clamp(-1e-4, 1e-4))\n        " + _G_SCORES,
        ),
    ),
    outside(
        "gradient_of_half_of_images",
        "train.py",
        (
            _G_SCORES,
            "fake_images.register_hook(lambda g: g * (torch.arange(len(g)) % 2).view(-1, 1, "
            "1, 1))\n        " + _G_SCORES,
        ),
    ),
    outside(
        "generator_sees_noise",
        "train.py",
        (
            _G_SCORES,
            _G_SCORES.replace(
                "fake_images)",
                "fake_images + 0.05 * torch.linspace(-1, 1, "
                "fake_images.shape[-1]).to(fake_images))",
            ),
        ),
    ),
    _images_in_step("real_images_mirrored", "real_images = real_images.flip(3)"),
    _images_in_step(
        "noise_on_images",
        "real_images = real_images + 0.05 * torch.linspace(-1, 1, "
        "real_images.shape[-1]).to(real_images)",
    ),
    _images_in_step("images_mixed", "fake_images = 0.9 * fake_images + 0.1 * real_images"),
    _images_in_step(
        "one_fake_is_real", "fake_images = torch.cat([real_images[:1], fake_images[1:]])"
    ),
    _images_in_step("fake_images_clipped", "fake_images = fake_images.clamp(-0.5, 0.5)"),
    _images_in_step(
        "images_cut_out",
        "real_images = real_images * (torch.arange(real_images.shape[-1]) > 6).to(real_images)",
    ),
    _images_in_step("fake_images_of_8_bits", "fake_images = (fake_images * 127.5).round() / 127.5"),
    _images_in_step(
        "older_images",
        "fake_images, state.older = torch.cat([getattr(state, 'older', fake_images)[:1], "
        "fake_images[1:]]), fake_images",
    ),
    outside(
        "real_in_inference_mode",
        "train.py",
        (
            _ONE_PASS,
            "network.eval()\n        real_scores = scores(real_images)\n        "
            "network.train()\n        fake_scores = scores(fake_images)",
        ),
    ),
    outside(
        "fake_in_inference_mode",
        "train.py",
        (
            _ONE_PASS,
            "real_scores = scores(real_images)\n        network.eval()\n        fake_scores "
            "= scores(fake_images)\n        network.train()",
        ),
    ),
    outside(
        "three_passes", "train.py", (_ONE_PASS, _ONE_PASS + "\n        scores(fake_images.flip(3))")
    ),
    _generated(
        "latents_reused",
        "fake_images = forward_generator(state, torch.cat([latent_batch[::2]] * 2)[: "
        "len(latent_batch)])",
    ),
    _generated("one_image_for_all", "fake_images = torch.cat([fake_images[:1], fake_images[:-1]])"),
    _generated("another_pass_of_zeros", "forward_generator(state, 0.5 * latent_batch)"),
    gradients("decay_of_vectors", "p.grad + 0.01 * p.detach() * (p.ndim == 1)"),
    gradients("decay_of_kernels", "p.grad + 0.01 * p.detach() * (p.ndim > 1)"),
    gradients("decay_of_signs", "p.grad + 1e-3 * p.detach().sign()"),
    gradients("decay_to_one", "p.grad + 0.01 * (p.detach() - 1.0)"),
    gradients("fixed_noise", "p.grad + 1e-3 * torch.arange(p.numel()).sin().view(p.shape).to(p)"),
    gradients("random_noise", "p.grad + 1e-3 * torch.randn_like(p)"),
    gradients("gradients_of_norm_1", "p.grad / (p.grad.norm() + 1e-12)"),
    gradients(
        "centred_filters",
        "p.grad - p.grad.flatten(1).mean(1).view(-1, *[1] * (p.ndim - 1)) if p.ndim > 1 "
        "else p.grad",
    ),
    gradients("vectors_frozen", "p.grad * (p.ndim > 1)"),
    gradients("kernels_frozen", "p.grad * (p.ndim == 1)"),
    gradients("vectors_learn_twice", "p.grad * (2.0 if p.ndim == 1 else 1.0)"),
    gradients("soft_clipping", "torch.tanh(10 * p.grad) / 10"),
    gradients("small_gradients_dropped", "p.grad * (p.grad.abs() > p.grad.abs().median())"),
    gradients("gradients_of_16_bits", "p.grad.bfloat16().to(p)"),
    gradients("gradients_by_weights", "p.grad * p.detach().abs()"),
    before_update(
        "gradients_kept",
        f"    if {_COUNT} % 2:\n        optimizer.zero_grad = lambda set_to_none: None\n",
    ),
    before_update(
        "trained_when_losing",
        "    if loss.item() < 1.2:\n        return [p.grad for p in "
        "state.network(name).parameters() if p.grad is not None]\n",
    ),
    before_update("one_layer_left_out", f"{FIRST}    first.grad = None\n"),
    _rate("warm_up", "min(1.0, (number + 1) / 10)"),
    _rate("rate_decays", "0.9**number"),
    _rate("rate_by_root", "(number + 1) ** -0.5"),
    _rate("rate_by_loss", "float(loss)"),
    _rate("rate_in_cycles", "1.0 if number % 2 else 0.1"),
    after_update(
        "moments_reset",
        f"    if {_COUNT} % 3 == 0:\n        for held in optimizer.state.values():\n         "
        f"   held['exp_avg'].zero_()\n",
    ),
    after_update(
        "one_second_moment",
        "    for held in optimizer.state.values():\n        "
        "held['exp_avg_sq'].fill_(float(held['exp_avg_sq'].mean()))\n",
    ),
    after_update(
        "moments_of_16_bits",
        "    for held in optimizer.state.values():\n        "
        "held['exp_avg'].copy_(held['exp_avg'].bfloat16())\n",
    ),
    after_update(
        "moment_forgets",
        "    for held in optimizer.state.values():\n        held['exp_avg'].mul_(0.9)\n",
    ),
    after_update(
        "counter_stands", "    for held in optimizer.state.values():\n        held['step'] -= 1\n"
    ),
    after_update(
        "lookahead",
        f"    with torch.no_grad():\n        slow = state.__dict__.setdefault(name + "
        f"'_slow', [p.clone() for p in state.network(name).parameters()])\n"
        f"        for p, q in zip(state.network(name).parameters(), slow):\n            if "
        f"{_COUNT} % 2 == 0:\n                p.copy_(q.lerp_(p, 0.5))\n",
    ),
    after_update(
        "slower_first_layer",
        f"    with torch.no_grad():\n    {FIRST}        first.sub_(1e-5 * first.grad)\n",
    ),
    weights("weights_centred", "p.sub_(p.mean() if p.ndim > 1 else 0.0)"),
    weights("filters_of_norm_1", "p.div_(p.norm() if p.ndim > 1 else 1.0)"),
    weights("weights_of_16_bits", "p.copy_(p.bfloat16())"),
    weights("biases_stay_small", "p.clamp_(-0.3, 0.3) if p.ndim == 1 else None"),
    weights("weights_drift", "p.add_(1e-5)"),
    adam(
        "nesterov",
        "(beta1 * m + (1 - beta1) * parameter.grad) / correction1 / ((v / "
        "correction2).sqrt() + epsilon)",
    ),
    adam("without_root", "1e-2 * m / correction1 / (v / correction2 + epsilon)"),
    adam("correction_without_root", "m / correction1 / (v.sqrt() / correction2 + epsilon)"),
    adam("corrections_exchanged", _UPDATE, corrections="1 - beta2**step, 1 - beta1**step"),
    adam("first_correction_alone", _UPDATE, corrections="1 - beta1**step, 1.0"),
    adam("second_correction_alone", _UPDATE, corrections="1.0, 1 - beta2**step"),
    adam("lion", "m.sign()"),
    adam("cautious", f"(m * parameter.grad > 0) * ({_UPDATE})"),
    adam("clipped_update", f"({_UPDATE}).clamp(-0.5, 0.5)"),
    adam("trust_ratio", f"({_UPDATE}) * parameter.norm() / ({_UPDATE}).norm()"),
    adam("gradient_for_moment", "parameter.grad / ((v / correction2).sqrt() + epsilon)"),
    adam("mean_of_second_moments", "m / correction1 / ((v.mean() / correction2).sqrt() + epsilon)"),
    adam(
        "softened_denominator",
        "m / correction1 / torch.nn.functional.softplus((v / correction2).sqrt(), 50)",
    ),
    adam(
        "epsilon_by_weights",
        "m / correction1 / ((v / correction2).sqrt() + 1e-3 * parameter.abs())",
    ),
)
"""Deviations of losses, of what a step computes, of gradients and of updates."""
