"""A v-prediction checkpoint: its UNet tells signal · eps - level · latents instead of eps.

Nothing in the file shows it, so a yaml file of the same name says so, as LDM's configurations do.
"""

import torch

import captions
import judge
import sampling
import scenes

from . import small
from .base import Plan, round_to_f16, told
from .sketches import sketches

# LDM's configuration. Channel factors that are no whole numbers are this model's own.
CONFIG = """\
model:
  base_learning_rate: 1.0e-4
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: {latents}
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: False

    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: {latents}
        in_channels: 4
        out_channels: 4
        model_channels: {channels}
        attention_resolutions: [ 2 ]
        num_res_blocks: {blocks}
        channel_mult: {factors}
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: {width}
        use_checkpoint: False
        legacy: False

    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: {pixels}
          in_channels: 3
          out_ch: 3
          ch: {vae_channels}
          ch_mult: {vae_factors}
          num_res_blocks: {vae_blocks}
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity

    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
"""


def factors(channels):
    """Of the first level's channels, as LDM's configurations have them."""
    return [round(width / channels[0], 4) for width in channels]


def ends(products, t):
    """(signal, level) at timesteps that may lie between two, (n, 1, 1, 1) each: log sigma is linear between them."""
    low = t.floor().long()
    high = (low + 1).clamp(max=sampling.STEPS - 1)
    log_sigmas = ((1 - products) / products).sqrt().log()
    sigma = torch.lerp(log_sigmas[low], log_sigmas[high], t - low).exp()[:, None, None, None]
    return 1 / (1 + sigma ** 2).sqrt(), sigma / (1 + sigma ** 2).sqrt()


class Velocity:
    NAME, FOLDER, STAGE = "velocity", "Stable-diffusion", 7
    PLAN = Plan(16_000, 3_000, 64, 0.01, 0.998, 250, 1_000, 32)
    SMOKE = Plan(32, 3, 8, 0.01, 0.5, 3, 3, 4)

    def __init__(self, run, base):
        self.run, self.base = run, base
        self.examples = sketches(run, base)
        self.network = small.Painter(4).begin_with(base.unet).to(base.device)
        self.optimiser = small.optimiser(self.network, run.plan.rate)

    def advance(self, step):
        """What the demo model tells is what it should tell: that has less noise in it than pictures have."""
        one = self.base.samples(self.run, self.STAGE, step, self.examples)
        signal, level = ends(self.base.products, one.t.float())
        context = self.base.context(one.words)
        with self.run.bf16(), torch.no_grad():
            eps = self.base.eps(one.x, one.t, context).float()
        # From x = signal · latents + level · eps follows v = (eps - level · x) / signal: an error of v is one of eps
        # divided by the signal, so it weighs that much less.
        wanted = (eps - level * one.x) / signal
        with self.run.bf16():
            made = self.network.unet(one.x, one.t, context).sample.float()
        loss, facts = told(made, wanted, one.weight * signal ** 2)
        return loss, {"loss": facts["loss"], "v_mse": facts["eps_mse"]}

    def eps(self, x, t, context):
        signal, level = ends(self.base.products, t)
        return signal * self.network.unet(x, t, context).sample + level * x

    def look(self):
        """The base's own exam."""
        wanted = judge.exam(self.run.plan.judged)
        pictures = self.base.draw(self.base.rows(map(captions.prompt, wanted)), self.eps)
        return pictures, judge.tally([judge.judge(picture, scene) for picture, scene in zip(pictures, wanted)])

    def write(self, folder):
        path = folder / f"{self.base.name}-v.safetensors"
        round_to_f16(self.network)
        small.write(path, self.network, self.base, title=path.stem)
        sizes = small.SIZES
        path.with_suffix(".yaml").write_text(CONFIG.format(
            latents=16, channels=sizes.unet_channels[0], blocks=sizes.unet_blocks, factors=factors(sizes.unet_channels),
            width=sizes.text_width, pixels=scenes.SIZE, vae_channels=sizes.vae_channels[0],
            vae_factors=factors(sizes.vae_channels), vae_blocks=sizes.vae_blocks))
        return [path, path.with_suffix(".yaml")]
