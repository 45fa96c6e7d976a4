//! `RetinaFace` over a `ResNet`: where faces are, with their eyes, noses and the corners of their mouths.
//!
//! Source: Deng et al. 2019, "RetinaFace: Single-stage Dense Face Localisation in the Wild"; what files are called
//! (detection_Resnet50_Final.pth) and have is facexlib's. What comes out is as the network has it: each place of three grids has two
//! anchors, and who asks decodes these.

use super::parts::{alone, normed, picture};
use super::resnet::{self, ResNet};
use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::networks::detect::dim;
use crate::networks::file_network::FileNetwork;
use crate::networks::standalone::{Described, Entry, Port, Side};
use crate::nn::{
    Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, Linear, Loader, Pointwise, Run, Vector,
    add, cat_channels, resized_nearest, upload,
};
use crate::tensor::Tensor;

/// Anchors of a place.
const ANCHORS: usize = 2;

/// Numbers of an anchor that each head gives: classes, sides of a box, places of five points.
const HEADS: [(&str, usize); 3] = [("BboxHead", 4), ("ClassHead", 2), ("LandmarkHead", 10)];

/// Channels up to which its `ReLU`s leak, and by how much.
const NARROW: usize = 64;
const LEAK: f32 = 0.1;

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    backbone: resnet::Config,
    width: usize,
}

/// A convolution and what follows it.
struct Step {
    convolution: Conv2d,
    /// Of leaky ones.
    leaks: Option<Vector>,
}

impl Step {
    fn load(loader: &Loader, name: &str, config: ConvConfig, width: usize) -> Result<Self> {
        let leaks = || loader.device().vector(vec![LEAK; config.outputs], config.outputs);
        Ok(Self {
            convolution: normed(loader, &format!("{name}.0"), &format!("{name}.1"), config)?,
            leaks: (width <= NARROW).then(leaks).transpose()?,
        })
    }

    fn forward(&self, x: &Activations) -> Result<Activations> {
        let epilogue = match &self.leaks {
            Some(leaks) => Epilogue { slopes: Some(leaks), ..Epilogue::default() },
            None => Epilogue { activation: Activation::Relu, ..Epilogue::default() },
        };
        self.convolution.forward_with(x, &epilogue)
    }
}

/// Convolutions of what seems one of 3, one of 5 and one of 7, side by side.
struct Context {
    three: Conv2d,
    five: (Step, Conv2d),
    seven: (Step, Conv2d),
}

impl Context {
    fn load(loader: &Loader, name: &str, width: usize) -> Result<Self> {
        let quarter = width / 4;
        let plain = |part: &str, inputs, outputs| {
            let name = format!("{name}.{part}");
            normed(loader, &format!("{name}.0"), &format!("{name}.1"), ConvConfig::same(inputs, outputs))
        };
        let step = |part: &str, inputs| {
            Step::load(loader, &format!("{name}.{part}"), ConvConfig::same(inputs, quarter), width)
        };
        Ok(Self {
            three: plain("conv3X3", width, width / 2)?,
            five: (step("conv5X5_1", width)?, plain("conv5X5_2", quarter, quarter)?),
            seven: (step("conv7X7_2", quarter)?, plain("conv7x7_3", quarter, quarter)?),
        })
    }

    fn forward(&self, device: &Device, x: &Activations) -> Result<Activations> {
        let inner = self.five.0.forward(x)?;
        let five = self.five.1.forward(&inner)?;
        let seven = self.seven.1.forward(&self.seven.0.forward(&inner)?)?;
        let all = cat_channels(device, &cat_channels(device, &self.three.forward(x)?, &five)?, &seven)?;
        device.pointwise(&all, Pointwise::Relu)
    }
}

/// The network.
pub(in crate::networks) struct RetinaFace {
    backbone: ResNet,
    inner: [Step; 3],
    merged: [Step; 2],
    contexts: [Context; 3],
    /// Those of each size, as [`HEADS`] has them.
    heads: [[Linear; 3]; 3],
}

impl FileNetwork for RetinaFace {
    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        ["body.conv1.weight", "fpn.output1.0.weight", "ClassHead.0.conv1x1.weight"]
            .iter()
            .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        Ok(Config {
            backbone: resnet::Config::detect(file, &format!("{prefix}body."))?,
            width: dim(file, &format!("{prefix}fpn.output1.0.weight"), 0)?,
        })
    }

    fn described(_config: &Config) -> Described {
        let numbers = |name, count, about| Port {
            name,
            sides: vec![Side::Free("batch"), Side::Free("anchors"), Side::Fixed(count)],
            about,
        };
        let about = "blue, green and red of 0 to 255, less 104, 117 and 123";
        let entry = Entry {
            name: "",
            inputs: vec![picture("image", about, [Side::Free("height"), Side::Free("width")])],
            outputs: vec![
                numbers("boxes", 4, "centres and sides, as anchors are to be moved"),
                numbers("scores", 2, "how likely there is none, and a face: 0 to 1"),
                numbers("points", 10, "eyes, nose and corners of the mouth, as anchors are to be moved"),
            ],
        };
        Described { kind: "retinaface", entries: vec![entry] }
    }

    fn tried(_config: &Config) -> usize {
        128
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let Config { backbone, width } = config;
        let width = *width;
        let outputs = backbone.outputs();
        let [first, second, third] = outputs[..] else { bail!("features of {outputs:?}") };
        let inner = |index: usize, inputs| {
            Step::load(loader, &named(&format!("fpn.output{index}")), alone(inputs, width), width)
        };
        let merged = |index: usize| {
            Step::load(loader, &named(&format!("fpn.merge{index}")), ConvConfig::same(width, width), width)
        };
        let context = |index: usize| Context::load(loader, &named(&format!("ssh{index}")), width);
        let heads = |index: usize| {
            let head = |(name, count): (&str, usize)| {
                Linear::load(loader, &named(&format!("{name}.{index}.conv1x1")), width, ANCHORS * count)
            };
            let [boxes, scores, points] = HEADS.map(head);
            Ok::<_, crate::Error>([boxes?, scores?, points?])
        };
        Ok(Self {
            backbone: ResNet::load(loader, &named("body."), backbone)?,
            inner: [inner(1, first)?, inner(2, second)?, inner(3, third)?],
            merged: [merged(1)?, merged(2)?],
            contexts: [context(1)?, context(2)?, context(3)?],
            heads: [heads(0)?, heads(1)?, heads(2)?],
        })
    }

    /// Norms count the batches that they were trained on.
    fn may_be_left(name: &str) -> bool {
        name.ends_with(".num_batches_tracked")
    }

    fn forward(&self, _entry: &str, inputs: &[Tensor], device: &Device, run: &Run) -> Result<Vec<Tensor>> {
        let [image] = inputs else { bail!("retinaface: {} inputs, one is taken", inputs.len()) };
        let x = upload(device, &image.to_channels_last()?)?;
        let seen = self.backbone.forward(&x, device, run)?;
        let [first, second, third] = &seen[..] else { bail!("{} features", seen.len()) };
        run.enter(device, format_args!("retinaface.heads"))?;
        let below = |inner: &Step, x: &Activations, above: &Activations, merged: &Step| {
            let inner = inner.forward(x)?;
            let (_, rows, columns, _) = inner.dims4()?;
            merged.forward(&add(device, &inner, &resized_nearest(device, above, rows, columns)?)?)
        };
        let third = self.inner[2].forward(third)?;
        let second = below(&self.inner[1], second, &third, &self.merged[1])?;
        let first = below(&self.inner[0], first, &second, &self.merged[0])?;
        let mut made = HEADS.map(|_| vec![]);
        for ((features, context), heads) in [first, second, third].iter().zip(&self.contexts).zip(&self.heads)
        {
            let features = context.forward(device, features)?;
            for (made, head) in made.iter_mut().zip(heads) {
                made.extend(device.download(&head.forward_with(&features, &Epilogue::widened())?)?);
            }
        }
        for chances in made[1].chunks_exact_mut(2) {
            let [none, face] = chances else { continue };
            let most = none.max(*face);
            let (of_none, of_face) = ((*none - most).exp(), (*face - most).exp());
            (*none, *face) = (of_none / (of_none + of_face), of_face / (of_none + of_face));
        }
        let tensor = |(values, (_, count)): (Vec<f32>, (&str, usize))| {
            let anchors = values.len() / count;
            Tensor::new(values, [1, anchors, count])
        };
        made.into_iter().zip(HEADS).map(tensor).collect()
    }
}
