"""What goes into a request and what comes out of it."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, TypedDict, Union

from .errors import ProtocolError
from .plugins import PluginLine, parse_plugin_line
from .whole_file import write_whole


class Output(TypedDict, total=False):
    """How pictures come back."""

    format: str
    """``"png"`` (default), ``"jpeg"``, ``"webp"`` (lossless), ``"raw"`` pixels, or ``"file"``: a path instead of the
    bytes."""
    dir: str
    """Where ``"file"`` puts them: an absolute path of an existing folder."""


class PreviewFields(TypedDict, total=False):
    """Pictures while sampling."""

    every: int
    """Steps between two previews."""
    kind: str
    """``"latent"`` (default): a cheap picture at 1/8 of the size; ``"taesd"``: a better one at the picture's size, where
    TAESD is in the library; ``"full"``: by the VAE, each as long as decoding the picture."""


class Txt2ImgFields(TypedDict, total=False):
    """Fields of ``txt2img`` beside the prompt, with AUTOMATIC1111's names and meaning.

    What is left out has the daemon's default. An unknown field is an :class:`~latentd.InvalidParams` that names
    the nearest known one.
    """

    negative_prompt: Union[str, List[str]]
    """What to steer away from; a list has one text for each picture, as that of prompts."""
    regions: List[Region]
    """Parts of each picture that are told something else than the prompt, at most 16."""
    styles: List[str]
    """Styles by their names (:meth:`~latentd.Client.styles`), put around the prompts in this order: their texts
    take the place of ``{prompt}`` in them, or stand behind them, with a comma between."""
    emphasis: str
    """What brackets do: ``"Original"`` (default), ``"No norm"`` (the mean is not restored), ``"Ignore"`` (nothing), or
    ``"None"`` (they are text)."""
    comma_padding_backtrack: int
    """How many tokens back a comma may stand for a chunk of 75 to end there instead of within a phrase: 0 for none, 20
    if left out."""
    use_old_scheduling: bool
    """Whether ``when`` in ``[from:to:when]`` is a share of the steps below 1 and a step else, as before AUTOMATIC1111
    1.6."""
    seed: int
    """0 or more; −1 (the default) draws one, and reports it."""
    subseed: int
    """Another seed, to whose picture ``subseed_strength`` leads; −1 (the default) draws one, and reports it. With it, all
    pictures of a request have the same seed, and picture i ``subseed + i``."""
    subseed_strength: float
    """How far to go from the picture of ``seed`` to that of ``subseed``: 0 (the default) to 1."""
    seed_resize_from_w: int
    """With ``seed_resize_from_h``: the size in pixels at which the seed draws what shows in the middle."""
    seed_resize_from_h: int
    """Rows of it."""
    steps: int
    """Sampler steps; 20 if left out."""
    cfg_scale: float
    """How strongly the prompt guides; 1 leaves the negative prompt out."""
    denoising_strength: float
    """How far ``img2img`` goes from the picture that it begins with, or the second pass of hires fix from that of the first: 0
    nowhere, 1 to where nothing of it is left; 0.75 if left out."""
    enable_hr: bool
    """Hires fix: draws the picture once more, larger, over what was drawn at ``width`` and ``height``. ``img2img`` has none.
    The fields below are of that second pass, and do nothing without it."""
    hr_scale: float
    """How many times as large; 2 if left out."""
    hr_resize_x: int
    """Pixels in a row instead; with ``hr_resize_y`` left out the ratio is kept, else what stands out is cut off."""
    hr_resize_y: int
    """Rows, as ``hr_resize_x``."""
    hr_second_pass_steps: int
    """Steps of the second pass; ``steps`` if left out."""
    hr_upscaler: str
    """What makes the first picture larger: ``"Latent"`` (default) and its kinds its latents; ``"None"``, ``"Lanczos"`` and
    ``"Nearest"`` its pixels; or an upscaler of a plugin, which ``plugins`` tells."""
    hr_prompt: Union[str, List[str]]
    """What to draw then, with networks of its own; empty for the prompt."""
    hr_negative_prompt: Union[str, List[str]]
    """What to steer away from then; empty for ``negative_prompt``."""
    hr_sampler_name: str
    """The sampler then; the same if left out."""
    hr_scheduler: str
    """The schedule then; the same if left out."""
    hr_checkpoint_name: str
    """The checkpoint then; the same if left out."""
    hr_cfg: float
    """The guidance scale then; the same if left out."""
    save_images_before_highres_fix: bool
    """Gives back the pictures of the first pass too, those of a batch before those of its second."""
    restore_faces: bool
    """Restores faces in the pictures, before plugins have them; those of the first of two passes stay as they were drawn."""
    face_restoration_model: str
    """By what: ``"CodeFormer"`` (default) or ``"GFPGAN"``, or another restorer of a plugin, which ``plugins`` tells."""
    code_former_weight: float
    """How close CodeFormer stays to the picture: 0 changes most, 1 least; 0.5 if left out."""
    width: int
    """Pixels, a multiple of 8; the checkpoint's own if left out, mostly 512."""
    height: int
    """Pixels, a multiple of 8; the checkpoint's own if left out, mostly 512."""
    sampler_name: str
    """One of ``capabilities.samplers``; old joint names such as ``"DPM++ 2M Karras"`` set the scheduler too."""
    scheduler: str
    """One of ``capabilities.schedulers``; ``"Automatic"`` (default) is the sampler's own."""
    eta: float
    """How much of the noise that a step takes away is drawn anew, 0 to 1; the sampler's own if left out."""
    s_churn: float
    """How much noise Euler, Heun and DPM2 add before their steps, over all of them."""
    s_tmin: float
    """The lowest level at which they add it."""
    s_tmax: float
    """The highest level at which they add it; 0 (default) for all."""
    s_noise: float
    """What noise drawn on the way is multiplied by, for samplers that have it so; 1 if left out."""
    eta_noise_seed_delta: int
    """What is added to each seed for the noise drawn on the way: AUTOMATIC1111's ENSD."""
    sigma_min: float
    """The schedule's lowest level; 0 (default) for the model's."""
    sigma_max: float
    """The schedule's highest level; 0 (default) for the model's."""
    rho: float
    """The exponent of Karras and Polyexponential; 0 (default) for their own."""
    beta_dist_alpha: float
    """The first parameter of the schedule Beta; 0.6 if left out."""
    beta_dist_beta: float
    """The second; 0.6 if left out."""
    always_discard_next_to_last_sigma: bool
    """Plans one step more and leaves out the level before the last."""
    sgm_noise_multiplier: bool
    """Multiplies the initial noise by √(1 + σ²) instead of σ."""
    uni_pc_variant: str
    """``"bh1"`` (default), ``"bh2"`` or ``"vary_coeff"``."""
    uni_pc_skip_type: str
    """``"time_uniform"`` (default), ``"time_quadratic"`` or ``"logSNR"``."""
    uni_pc_order: int
    """Predictions that a step of UniPC goes by, never more than there are steps; 3 if left out."""
    uni_pc_lower_order_final: bool
    """Whether UniPC's last steps go by fewer; they do if left out."""
    s_min_uncond: float
    """Leaves out the negative prompt at each second model call below this level, which takes half of their time."""
    s_min_uncond_all: bool
    """At each model call below it."""
    skip_early_cond: float
    """Leaves out the negative prompt at this share of the model calls, from the first on."""
    sd_noise_schedule: str
    """``"Default"`` or ``"Zero Terminal SNR"``: for models that were trained with noise alone at the last timestep."""
    batch_size: int
    """Pictures drawn at once."""
    n_iter: int
    """Batches drawn one after the other."""
    clip_skip: int
    """Which hidden state of the text encoder counts: 1 the last, 2 the one before it."""
    pad_cond_uncond: bool
    """Pads the shorter of both prompts with empty chunks; off, as A1111 has it by default."""
    pad_cond_uncond_v0: bool
    """Makes the negative prompt as long as the prompt by its last token again and again, or by cutting it, as DDIM had it
    before AUTOMATIC1111 1.6."""
    checkpoint: str
    """A library name (the file's name without extension), a hash, a path inside a models folder or the folder of its
    kind, or one of these with a hash behind it, as A1111 writes it: ``"anime/v2.safetensors [0123456789]"``."""
    vae: str
    """A library name, a hash or a path, ``"None"`` for the checkpoint's own, or ``"Automatic"``: the one whose file's
    name begins with the checkpoint's, else the checkpoint's own. As the daemon is set if left out."""
    sd_vae_decode_method: str
    """``"Full"`` (default: the VAE) or ``"TAESD"``: much quicker, less exact; its file must be in the library."""
    keep_alive: float
    """Seconds that the checkpoint stays in memory after the job; 0 lets it go at once, −1 never. As the daemon is set
    if left out."""
    loras: List[Lora]
    """LoRAs behind those that the prompt names as ``<lora:NAME:STRENGTH>``."""
    plugins: Mapping[str, Mapping[str, Any]]
    """Plugins that take part, by name (:meth:`~latentd.Client.plugins`), each with its parameters
    (:meth:`~latentd.Client.plugin_schema`), at most 32: ``{"vignette": {"strength": 0.5}}``."""
    plugin_versions: Mapping[str, str]
    """Versions of plugins that it wants, by name, where it does not want the highest that is there."""
    rewrite: bool
    """Whether plugins may rewrite the request before it is resolved, as they may by default; ``image_info`` says false where
    one of a picture's plugins would do it again."""
    strict: bool
    """An error if something that is asked for is not applied, such as a LoRA that is not there; else ``Result.notices``
    tells of it."""
    refiner_checkpoint: str
    """A checkpoint that goes on where the own one ends, named as ``checkpoint`` is."""
    refiner_switch_at: float
    """The share of the way from noise to picture after which it does; 0.8 if left out."""
    tiling: bool
    """Makes pictures that can be laid side by side: what is drawn goes on beyond each border with the other end."""
    tiling_x: bool
    """The same from the right to the left only."""
    tiling_y: bool
    """The same from the bottom to the top only."""
    rng: str
    """``"nv"`` (default) or ``"cpu"``: whose noise a seed stands for."""
    precision: str
    """``"auto"`` (default: what the daemon's processor is quickest in), ``"f32"``, ``"bf16"`` or ``"f16"``."""
    output: Output
    """How pictures come back."""
    preview: PreviewFields
    """Asks for preview events; ``on_preview`` does so by itself."""
    on_disconnect: str
    """``"keep"`` (default), or ``"cancel"``: the job ends when this program does, however that happens."""


class SoftInpainting(TypedDict, total=False):
    """How original and drawn picture are blended where a mask is grey, as AUTOMATIC1111's extension does it."""

    mask_blend_power: float
    """How the original's share depends on the level of noise: below 1 more of it stays near the end, above at the
    beginning; 1 if left out."""
    mask_blend_scale: float
    """How much of the original stays where the mask is grey; 0.5 if left out."""
    inpaint_detail_preservation: float
    """How close the strength of blended latents is to the stronger of both; 4 if left out."""
    composite_mask_influence: float
    """How much the mask says beside what changed when both pictures are laid over each other; 0 if left out."""
    composite_difference_threshold: float
    """How far latents must lie from the original's to be seen by half; 0.5 if left out."""
    composite_difference_contrast: float
    """How sudden that is; 2 if left out."""


class Loopback(TypedDict, total=False):
    """How often to draw from what was drawn."""

    loops: int
    """How often in all; 4 if left out."""
    final_denoising_strength: float
    """What ``denoising_strength`` becomes in the last loop; 0.5 if left out."""
    denoising_curve: str
    """How it changes on the way: ``"Linear"`` (default), ``"Aggressive"`` (mostly in the first loops) or ``"Lazy"``."""


class SdUpscale(TypedDict, total=False):
    """How a picture is made larger and drawn anew in tiles: AUTOMATIC1111's script "SD upscale", and the extension "Ultimate SD
    upscale"."""

    upscaler: str
    """``"Lanczos"``, ``"Nearest"``, or a plugin's by its name. With ``"None"`` (default), ``"grid"`` leaves the picture as large
    as it is, and the others take Lanczos."""
    scale_factor: float
    """How many times as large; 2 if left out."""
    prompts: List[str]
    """Prompts of the tiles, row by row from the upper left, one for each; an empty one is the request's, as seams have it."""
    redraw: str
    """``"grid"`` (default): each tile from the enlarged picture, with the next seed, and put together; ``"linear"``: one after the
    other, each from what the picture has become; ``"chess"``: the same, every second one first; ``"none"``: the seams alone."""
    overlap: int
    """With ``"grid"``: pixels over which tiles fade into one another; 64 if left out."""
    padding: int
    """With the others: pixels around a tile that are drawn with it; 32 if left out."""
    mask_blur: float
    """With the others: how softly a tile ends; 8 if left out."""
    seams: str
    """What is drawn over the seams afterwards, not with ``"grid"``: ``"none"`` (default), ``"bands"``, ``"half-tile"`` or
    ``"half-tile-intersections"``."""
    seams_width: int
    """With ``"bands"``: pixels across; 64 if left out."""
    seams_denoise: float
    """The ``denoising_strength`` of seams; 0.35 if left out."""
    seams_mask_blur: float
    """How softly they end, but bands; 4 if left out."""
    seams_padding: int
    """Pixels around them that are drawn with them, but intersections; 16 if left out."""


class Img2ImgFields(Txt2ImgFields, total=False):
    """Fields of ``img2img`` beside its pictures and the prompt, with AUTOMATIC1111's names and meaning.

    Without ``width`` and ``height`` pictures are drawn at the size of the first one that they begin with, up to whole
    eighths; with a mask and ``inpaint_full_res`` at the checkpoint's own.
    """

    resize_mode: int
    """How a picture of another size comes to that which is drawn: 0 (default) stretched, 1 cropped, 2 with its edges drawn
    out, 3 stretched as latents."""
    img2img_fix_steps: bool
    """Draws ``steps`` steps, whatever the strength; else it is that share of them."""
    initial_noise_multiplier: float
    """What the initial noise is multiplied by; 1 if left out."""
    img2img_extra_noise: float
    """How much noise is added beside that of the first level."""
    img2img_color_correction: bool
    """Gives what is drawn the colours of what it is drawn from."""
    img2img_background_color: str
    """What is behind what is not opaque; ``"#ffffff"`` if left out."""
    mask: Union[ImageLike, List[ImageLike]]
    """Where to draw: white, or opaque if the mask has transparent pixels. One for all pictures, or a list of them as their
    pictures. All is drawn if left out."""
    mask_blur: float
    """Softens the mask: ``mask_blur_x`` and ``mask_blur_y`` in one."""
    mask_blur_x: float
    """Sigma in pixels along rows; 4 if left out."""
    mask_blur_y: float
    """Along columns; 4 if left out."""
    mask_round: bool
    """Whether latents are drawn whole or not at all where the mask is between; they are if left out."""
    inpainting_fill: int
    """What is there before it is drawn: 0 (default) the colours around it, 1 what was there, 2 noise, 3 nothing."""
    inpaint_full_res: bool
    """Draws only what is around the mask, at the full size, and puts it back into the picture; it does if left out."""
    inpaint_full_res_padding: int
    """With that: pixels around the mask."""
    inpainting_mask_invert: int
    """1 to draw what is not masked."""
    soft_inpainting: SoftInpainting
    """Blends what is drawn and what was there softly where the mask is grey; off if left out, ``{}`` for it as it is by
    default."""
    image_cfg_scale: float
    """For a checkpoint that edits pictures by words (InstructPix2Pix): how much the picture counts, beside ``cfg_scale`` for
    the words."""
    inpainting_mask_weight: float
    """For an inpainting checkpoint: how much of what is beneath the mask it does not get to see; 1 if left out."""
    sd_upscale: SdUpscale
    """Makes the picture larger and draws it anew in tiles of ``width`` and ``height``."""
    loopback: Loopback
    """Draws several times, each from the picture before, with the next seed. With an ``n_iter`` of 1 all of them are given
    back, else the last of each batch."""


class OutpaintFields(Txt2ImgFields, total=False):
    """Fields of ``outpaint`` beside its picture and the prompt, with AUTOMATIC1111's names and meaning.

    At least one of ``left``, ``right``, ``up`` and ``down`` is more than 0. A side that is continued comes to a multiple of 64,
    with its opposite, so more may be drawn than is asked for. ``width`` and ``height`` are the most that is drawn at once.
    """

    left: int
    """Pixels before its first column."""
    right: int
    """After its last."""
    up: int
    """Above its first row."""
    down: int
    """Below its last."""
    method: str
    """``"mk2"`` (default): one side after the other, each from noise that has the picture's spectrum; or ``"poor-mans"``: all
    sides at once, in tiles."""
    mask_blur: int
    """How far into the picture what is drawn reaches; 8 with ``"mk2"`` and 4 with ``"poor-mans"`` if left out."""
    inpainting_fill: int
    """With ``"poor-mans"``: what is there before it is drawn: 0 (default) the colours around it, 1 black, 2 noise, 3 nothing."""
    noise_q: float
    """With ``"mk2"``: the exponent of the noise that it begins with; lower is more detail; 1 if left out."""
    color_variation: float
    """With ``"mk2"``: the share of that noise that differs between colours; 0.05 if left out."""


class UpscaleFields(TypedDict, total=False):
    """Fields of ``image.upscale`` beside its pictures, with the names and meaning of AUTOMATIC1111's "Extras".

    Upscaling comes first, then GFPGAN, then CodeFormer; something of it must be asked for. Opacity is upscaled apart, 16 bits a
    channel stay 16 in PNG, and the colour profile is kept.
    """

    upscaler_1: str
    """The upscaler: ``"Lanczos"``, ``"Nearest"``, or a plugin's by its name; ``"None"`` (default) leaves the picture as large as
    it is."""
    upscaler_2: str
    """A second one, whose result is laid over that of the first."""
    extras_upscaler_2_visibility: float
    """How much of it is seen: 0 (default) nothing, 1 nothing else."""
    scale: float
    """How many times as large, then down to sides that 8 divides; 2 if neither it nor a size is given."""
    width: int
    """Instead, with ``height``: the columns to fill, the ratio of the sides kept."""
    height: int
    """The rows to fill."""
    crop: bool
    """With ``width`` and ``height``: whether what stands out of them is cut off; on if left out."""
    tile: int
    """Sides of the tiles that plugins' upscalers work on, in pixels of the picture; 0: the whole at once. The upscaler's own if
    left out."""
    overlap: int
    """Pixels over which tiles fade into one another, at most half of a tile. The upscaler's own if left out."""
    gfpgan_visibility: float
    """How much is seen of what GFPGAN makes of faces: a restorer of a plugin that is called so, or whose name begins so."""
    codeformer_visibility: float
    """The same of CodeFormer."""
    codeformer_weight: float
    """How close CodeFormer stays to the picture: 0 (default) changes most, 1 least."""
    plugin_versions: Dict[str, str]
    """Versions of plugins whose engines are named, where they are not the highest."""
    strict: bool
    """Whether notices are errors."""
    output: Output
    """How pictures come back. JPEG, WebP and raw pixels have 8 bits a channel."""
    on_disconnect: str
    """``"keep"`` (default) or ``"cancel"``: what becomes of the job when the connection ends that asked for it."""


class _RegionPlace(TypedDict):
    mask: ImageLike
    """Where it is: white, or opaque if the mask has transparent pixels; what is between counts in part. It is laid over
    the whole picture, whatever its size."""
    prompt: str
    """What to draw there; networks are of whole pictures, and named in the request's prompt."""


class Region(_RegionPlace, total=False):
    """A part of the pictures with a prompt of its own; where regions overlap, they share."""

    weight: float
    """How much of what guides there is its prompt, 0 to 1 (default); the rest is the request's."""


class _LoraName(TypedDict):
    name: str
    """Its name in the library, or what its trainer called it."""


class Lora(_LoraName, total=False):
    """A LoRA or another file of its family, and how strong."""

    unet: float
    """Strength in the UNet; that of the text encoder if left out, else 1."""
    te: float
    """Strength in the text encoder; that of the UNet if left out, else 1."""
    dyn: int
    """Uses the first so many ranks of each layer."""


class MergeFields(TypedDict, total=False):
    """Fields of ``models.merge`` beside the checkpoint ``a`` and the new file's name, with the meaning of AUTOMATIC1111's
    "Checkpoint merger". What is left out has the daemon's default."""

    b: str
    """The second checkpoint."""
    c: str
    """The third, for ``"add_difference"``."""
    method: str
    """``"weighted_sum"`` (default where ``b`` is given): A·(1−M) + B·M; ``"add_difference"``: A + (B−C)·M; ``"none"``: A
    alone. AUTOMATIC1111's names for them do, too."""
    multiplier: float
    """M; 0.3 if left out."""
    half: bool
    """Writes the networks in f16."""
    dtype: str
    """``"f32"``, ``"f16"`` or ``"bf16"``: the type of the networks' weights; A's if left out."""
    vae: str
    """A VAE that takes the place of A's."""
    loras: List[Lora]
    """LoRAs that are put into the weights, in this order."""
    discard_weights: str
    """A regular expression: tensors in whose name it is found are left out, such as ``"model_ema"``."""
    dir: str
    """Where to put the file: an absolute path of an existing folder. That for checkpoints in the first models folder if
    left out."""
    overwrite: bool
    """Replaces a file that is there already; else that is an error."""
    on_disconnect: str
    """``"keep"`` (default), or ``"cancel"``: the job ends when this program does, however that happens."""


@dataclass(frozen=True)
class Image:
    """One picture: encoded bytes, raw pixels, or a file, as ``output.format`` asked."""

    width: int
    height: int
    seed: Optional[int] = None
    """The seed that draws it alone."""
    infotext: str = ""
    """The ``parameters`` text that is also in the file."""
    png: Optional[bytes] = field(default=None, repr=False)
    jpeg: Optional[bytes] = field(default=None, repr=False)
    webp: Optional[bytes] = field(default=None, repr=False)
    raw: Optional[bytes] = field(default=None, repr=False)
    """Pixels row by row, 8 bits a channel."""
    channels: int = 3
    """Channels of ``raw``."""
    path: Optional[Path] = None
    subseed: Optional[int] = None
    """With ``seed``, of a picture with a ``subseed_strength``."""

    @property
    def data(self) -> bytes:
        """The bytes: of the encoded picture, of the file at ``path``, or of the raw pixels."""
        for encoded in (self.png, self.jpeg, self.webp, self.raw):
            if encoded is not None:
                return encoded
        if self.path is not None:
            return self.path.read_bytes()
        raise ProtocolError("the daemon sent an image without pixels")

    def pil(self) -> Any:
        """The picture as a ``PIL.Image.Image``. Needs Pillow: ``pip install latentd[images]``."""
        from PIL import Image as pil

        if self.raw is not None:
            mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(self.channels)
            if mode is None:
                raise ProtocolError(f"the daemon sent raw pixels with {self.channels} channels")
            return pil.frombytes(mode, (self.width, self.height), self.raw)
        return pil.open(io.BytesIO(self.data))

    @property
    def image(self) -> Any:
        """The picture as a ``PIL.Image.Image`` where Pillow is installed, else :attr:`data`."""
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            return self.data
        return self.pil()

    def save(self, path: Union[str, "os.PathLike[str]"]) -> Path:
        """Writes :attr:`data` to ``path``, whole or not at all; returns the path. Where a symbolic link stands, the file
        that it leads to is written.

        The format is the one that was asked for, whatever the name ends in. Raw pixels have no file format:
        use ``pil().save(path)`` for them.
        """
        if self.raw is not None:
            raise ValueError("raw pixels have no file format; use pil().save(path)")
        write_whole(Path(path), self.data)
        return Path(path)


@dataclass(frozen=True)
class Artifact:
    """A picture that a plugin left beside the results."""

    plugin: str
    name: str
    """What it is, in the plugin's words."""
    picture: Image
    """Always lossless: PNG, raw pixels or a PNG file, as the request has it."""
    image: Optional[int] = None
    """Which of the result's images it belongs to; ``None`` of all."""


@dataclass(frozen=True)
class Result:
    """What a job made."""

    job: str
    images: List[Image]
    timings: Dict[str, Any]
    """Seconds of each stage, as the daemon measured them."""
    notices: List[str] = field(default_factory=list)
    """What the person who asked should know, such as that only the demo model was there to draw with, or what the
    prompt asks for that was not applied, or where files are that could not be written where they should be."""
    precision: str = ""
    """What was computed in: ``"f32"`` or ``"bf16"``."""
    plugin_timings: Dict[str, float] = field(default_factory=dict)
    """Seconds that each plugin took, within those of ``timings``."""
    artifacts: List[Artifact] = field(default_factory=list)
    """What plugins left beside the images."""
    plugin_log: List[PluginLine] = field(default_factory=list)
    """What plugins logged while it was drawn, at most 100 lines."""


@dataclass(frozen=True)
class UpscaleResult:
    """What was made larger."""

    images: List[Image]
    """The pictures, one for each that was given. Texts and profiles are those of the files that were given; at the end of
    ``infotext`` stands what was done."""
    job: str
    total_s: float = 0.0
    """Seconds from its turn to the result."""
    plugin_timings: Dict[str, float] = field(default_factory=dict)
    """Seconds of it that each plugin took."""
    plugin_log: List[PluginLine] = field(default_factory=list)
    """What plugins logged meanwhile, at most 100 lines."""
    artifacts: List[Artifact] = field(default_factory=list)
    """What plugins left beside the pictures."""
    notices: List[str] = field(default_factory=list)
    """What the person who asked should know."""


@dataclass(frozen=True)
class MergeResult:
    """The new file of a merge."""

    job: str
    path: Path
    name: str
    """What the library calls it; the file's name without extension where it is in no models folder."""
    tensors: int
    """Tensors in it."""
    bytes: int
    """Bytes of its tensors."""
    notices: List[str] = field(default_factory=list)
    """What the person who asked should know: what only one of the models has, what of a LoRA has no layer, that models
    predict different things."""


@dataclass(frozen=True)
class ImageInfo:
    """What a picture says of how it was made."""

    infotext: Optional[str]
    """AUTOMATIC1111's ``parameters`` text, or in its form what some other programs say; ``None`` where the picture has none."""
    method: Optional[str] = None
    """The method that repeats it: ``"txt2img"``, ``"img2img"`` or ``"outpaint"``."""
    params: Optional[Dict[str, Any]] = field(default=None, repr=False)
    """Its fields, as far as the text says: ``client.txt2img(**info.params)``, or ``client.img2img(**info.params)``, or
    ``client.outpaint(**info.params)``."""
    others: Dict[str, str] = field(default_factory=dict, repr=False)
    """Pairs of the text of which ``params`` says nothing."""
    texts: Dict[str, str] = field(default_factory=dict, repr=False)
    """The picture's other texts by their keywords, as the programs have them that wrote them."""
    notices: List[str] = field(default_factory=list, repr=False)
    """What plugins that read such texts have to say, and what of their answers is wrong."""
    read_by: List[str] = field(default_factory=list, repr=False)
    """Plugins that read parameters of their own in ``others``, which the request names."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: queued, started, progress, preview, finished, failed or cancelled."""

    job: str
    seq: int
    """Counts a job's events from 1. Numbers may be missing: a slow reader gets the latest progress only."""
    type: str
    data: Mapping[str, Any] = field(repr=False)
    """The whole event as it came."""

    @property
    def is_last(self) -> bool:
        """Whether nothing more happens to this job."""
        return self.type in ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class PluginProgress:
    """Where a plugin stands with what it does now."""

    name: str
    share: float
    """Of this, 0 to 1."""
    what: str = ""
    """What it does, in its words."""


@dataclass(frozen=True)
class Progress(Event):
    """A step or stage is done."""

    step: int = 0
    """Sampler steps done; the same number comes again when another stage is done. While ``"hashing"``, hundredths; while
    ``"merging"``, tensors."""
    steps: int = 0
    stage: str = ""
    """``"hashing"`` (of files, looked for by their hash, in hundredths), then ``"loading"``, ``"conditioning"``,
    ``"denoising"``, ``"decoding"`` or ``"restoring"`` (of faces); of ``image.upscale`` ``"upscaling"`` or ``"restoring"``; of a
    merge ``"merging"``."""
    eta_s: Optional[float] = None
    """Seconds that are left, once the daemon can tell."""
    pass_: str = ""
    """What is drawn: ``"base"``, or ``"hires"`` in the second pass of hires fix. Empty of other stages, and of older daemons."""
    plugin: Optional[PluginProgress] = None
    """Where a plugin stands, if it is what this tells of; the rest is as it was told before."""


@dataclass(frozen=True)
class Preview(Event):
    """A small picture of where the sampler stands."""

    image: Image = field(default_factory=lambda: Image(0, 0))
    step: int = 0
    pass_: str = ""
    """As of :class:`Progress`."""
    plugin: str = ""
    """Which plugin made it; empty if none did."""


@dataclass(frozen=True)
class LibraryEvent(Event):
    """Something that happened to the library: entries came, went or changed, each as ``"KIND/NAME"``.

    It is of no job: ``job`` is empty, and ``seq`` is 0.
    """

    added: List[str] = field(default_factory=list)
    changed: List[str] = field(default_factory=list)
    """Of which the file, or what lies beside it, is another one now, or the hash became known."""
    removed: List[str] = field(default_factory=list)


def parse_library_event(value: Any) -> LibraryEvent:
    """The map of a ``library.event`` notification."""
    if not isinstance(value, dict):
        raise ProtocolError("the daemon sent an event that is not a map")
    names = [[str(name) for name in value.get(key) or []] for key in ("added", "changed", "removed")]
    return LibraryEvent("", 0, str(value.get("type", "")), value, *names)


def parse_image(value: Any) -> Image:
    """An image from the wire."""
    if not isinstance(value, dict):
        raise ProtocolError("the daemon sent an image that is not a map")
    path = value.get("path")
    return Image(
        width=_number(value, "width"),
        height=_number(value, "height"),
        seed=value.get("seed"),
        infotext=value.get("infotext") or "",
        png=value.get("png"),
        jpeg=value.get("jpeg"),
        webp=value.get("webp"),
        raw=value.get("raw"),
        channels=value.get("channels") or 3,
        path=None if path is None else Path(path),
        subseed=value.get("subseed"),
    )


@dataclass(frozen=True)
class Blob:
    """A picture that the daemon was given before, by :meth:`~latentd.Client.put_blob`: stands for it wherever one is given."""

    sha256: str
    """64 hex digits."""


def image_in(image: "ImageLike") -> Dict[str, Any]:
    """A picture as the wire has it: of encoded bytes, of a file's path, of a result, or of what was given before."""
    if isinstance(image, Blob):
        return {"blob": image.sha256}
    if isinstance(image, Image):
        if image.raw is not None:
            return {"raw": image.raw, "width": image.width, "height": image.height, "channels": image.channels}
        if image.path is not None:
            return {"path": os.path.abspath(image.path)}
        image = image.data
    if not isinstance(image, (bytes, bytearray, memoryview)):
        # A relative path means ours, not the daemon's.
        return {"path": os.path.abspath(os.fspath(image))}
    data = bytes(image)
    if data.startswith(b"\xff\xd8"):
        return {"jpeg": data}
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return {"webp": data}
    # What is none of them the daemon refuses by name.
    return {"png": data}


ImageLike = Union[bytes, str, "os.PathLike[str]", Image, Blob]
"""An encoded picture's bytes, a file that the daemon can read, an :class:`Image`, or a :class:`Blob`."""


_PICTURES = (bytes, bytearray, memoryview, str, os.PathLike, Image, Blob)


def region_in(region: Any) -> Any:
    """A region with its mask as the wire has it. What is none goes as it is, for the daemon refuses it by name."""
    if not isinstance(region, Mapping) or not isinstance(region.get("mask"), _PICTURES):
        return region
    return {**region, "mask": image_in(region["mask"])}


def pictures_in(images: Any) -> Any:
    """One picture or several as the wire has a list of them. What are none go as they are."""
    if isinstance(images, _PICTURES) or isinstance(images, Mapping):
        images = [images]
    return [picture_in(image) for image in images] if isinstance(images, (list, tuple)) else images


def picture_in(image: Any) -> Any:
    """A picture as the wire has it. What is none goes as it is, for the daemon refuses it by name."""
    if not isinstance(image, _PICTURES):
        return image
    return image_in(bytes(image) if isinstance(image, (bytearray, memoryview)) else image)


def parse_blob(value: Any) -> Blob:
    """The result of ``blobs.put``."""
    if not isinstance(value, dict) or not isinstance(value.get("blob"), str):
        raise ProtocolError("the daemon answered blobs.put with what is no blob")
    return Blob(value["blob"])


def parse_image_info(value: Any) -> ImageInfo:
    """The result of ``image.info``."""
    if not isinstance(value, dict):
        raise ProtocolError("the daemon answered image.info with what is not a map")
    params = value.get("params")
    return ImageInfo(
        infotext=value.get("infotext"),
        method=value.get("method"),
        params=None if params is None else dict(params),
        others=dict(value.get("others") or {}),
        texts=dict(value.get("texts") or {}),
        notices=[str(notice) for notice in value.get("notices") or []],
        read_by=[str(name) for name in value.get("read_by") or []],
    )


def parse_merge_result(value: Any) -> MergeResult:
    """The result of ``models.merge``."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise ProtocolError("the daemon sent the result of a merge without a path")
    return MergeResult(
        job=str(value.get("job", "")),
        path=Path(value["path"]),
        name=str(value.get("name", "")),
        tensors=_number(value, "tensors"),
        bytes=_number(value, "bytes"),
        notices=[str(notice) for notice in value.get("notices") or []],
    )


def parse_upscale_result(value: Any) -> UpscaleResult:
    """The result of ``image.upscale``."""
    result = parse_result(value)
    return UpscaleResult(
        images=result.images,
        job=result.job,
        total_s=float(value.get("total_s") or 0.0),
        plugin_timings=result.plugin_timings,
        plugin_log=result.plugin_log,
        artifacts=result.artifacts,
        notices=result.notices,
    )


def parse_any_result(value: Any) -> Union[Result, UpscaleResult, MergeResult, Dict[str, Any]]:
    """The result of ``jobs.wait``, whatever the job's method: that of a plugin's is a map which names it."""
    if isinstance(value, dict) and isinstance(value.get("method"), str):
        return value
    if isinstance(value, dict) and "images" not in value and "path" in value:
        return parse_merge_result(value)
    if isinstance(value, dict) and "total_s" in value:
        return parse_upscale_result(value)
    return parse_result(value)


def parse_result(value: Any) -> Result:
    """The result of ``txt2img``."""
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        raise ProtocolError("the daemon sent a result without images")
    images = [parse_image(image) for image in value["images"]]
    notices = [str(notice) for notice in value.get("notices") or []]
    job = str(value.get("job", ""))
    timings, precision = dict(value.get("timings") or {}), str(value.get("precision", ""))
    plugins = {str(name): float(seconds) for name, seconds in dict(value.get("plugin_timings") or {}).items()}
    artifacts = [parse_artifact(artifact) for artifact in value.get("artifacts") or []]
    return Result(
        job=job,
        images=images,
        timings=timings,
        notices=notices,
        precision=precision,
        plugin_timings=plugins,
        artifacts=artifacts,
        plugin_log=[parse_plugin_line(line) for line in value.get("plugin_log") or []],
    )


def parse_artifact(value: Any) -> Artifact:
    """An artifact from the wire."""
    if not isinstance(value, dict):
        raise ProtocolError("the daemon sent an artifact that is not a map")
    name, plugin = str(value.get("name", "")), str(value.get("plugin", ""))
    return Artifact(plugin, name, parse_image(value.get("picture")), value.get("image"))


def parse_plugin_progress(value: Any) -> Optional[PluginProgress]:
    """What a progress event tells of a plugin."""
    if not isinstance(value, dict):
        return None
    share = value.get("share")
    return PluginProgress(
        name=str(value.get("name", "")),
        share=float(share) if isinstance(share, (int, float)) else 0.0,
        what=str(value.get("what") or ""),
    )


def parse_event(value: Any) -> Event:
    """The map of a ``job.event`` notification."""
    if not isinstance(value, dict):
        raise ProtocolError("the daemon sent an event that is not a map")
    job, seq, kind = str(value.get("job", "")), _number(value, "seq"), str(value.get("type", ""))
    if kind == "progress":
        step, steps = _number(value, "step"), _number(value, "steps")
        stage, pass_ = value.get("stage") or "", value.get("pass") or ""
        plugin = parse_plugin_progress(value.get("plugin"))
        return Progress(job, seq, kind, value, step, steps, stage, value.get("eta_s"), pass_, plugin)
    if kind == "preview" and value.get("image") is not None:
        image, pass_ = parse_image(value["image"]), value.get("pass") or ""
        author = value.get("plugin") or ""
        return Preview(job, seq, kind, value, image, value.get("step") or 0, pass_, author)
    return Event(job, seq, kind, value)


def _number(value: Dict[str, Any], key: str) -> int:
    number = value.get(key)
    if not isinstance(number, int):
        raise ProtocolError(f"the daemon sent {key} {number!r} where a whole number belongs")
    return number
