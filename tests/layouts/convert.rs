//! Weight files in another layout or type: what is written is what was read, and what cannot be is told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use latentd_models::files::{self, FileKind, Layout, Prediction, inspect};
use latentd_models::model::{Checkpoint, Conversion, Conversions, WeightDtype};
use latentd_models::{Error, Result};

use crate::folder::{Fixture, digests_of, read, write};

const AS_IT_IS: Conversion = Conversion { layout: None, dtype: None, ema: false };

fn to(layout: Layout) -> Conversion {
    Conversion { layout: Some(layout), ..AS_IT_IS }
}

fn converted(from: &Path, conversion: Conversion) -> Result<Conversions> {
    conversion.of(files::open(from)?)
}

fn write_to(at: &Path, conversions: &Conversions) -> Result<()> {
    let mut done = 0;
    let mut wrote = |bytes| {
        done += bytes;
        Ok(())
    };
    if conversions.is_folder() {
        fs::create_dir(at).expect("made");
        conversions.write_folder(at, at, &mut wrote)?;
    } else {
        conversions.write_file(&mut File::create_new(at).expect("made"), at, &mut wrote)?;
    }
    assert_eq!(done, conversions.bytes());
    Ok(())
}

/// Converts and says where that is.
fn convert(fixture: &Fixture, from: &str, to: &str, conversion: Conversion) -> PathBuf {
    let at = fixture.at(to);
    let conversions = converted(&fixture.at(from), conversion).expect("can be converted");
    write_to(&at, &conversions).expect("written");
    at
}

#[test]
fn from_one_layout_to_the_other_and_back_each_byte_is_the_same() {
    let fixture = Fixture::unpack();
    let wanted = digests_of(&fixture.at("ldm.safetensors"));
    let folder = convert(&fixture, "ldm.safetensors", "folder", to(Layout::Diffusers));
    for (name, layout) in [("folder", Layout::Ldm), ("plain", Layout::Ldm), ("sharded", Layout::Diffusers)] {
        let at = convert(&fixture, name, &format!("{name}-again"), to(layout));
        assert!(digests_of(&at) == wanted, "{name}");
        assert_eq!(inspect(&at).expect("inspects").layout, Some(layout));
    }
    assert!(digests_of(&folder) == wanted);
    let ldm = read(&fixture.at("folder-again"));
    assert!(ldm == read(&fixture.at("ldm.safetensors")), "shapes too");

    // diffusers' own names and shapes, network by network.
    for network in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"] {
        let of = |folder: &str| read(&fixture.at(&format!("{folder}/{network}.safetensors")));
        assert!(of("folder") == of("plain"), "{network}");
    }
    let ours = read(&folder.join("text_encoder/model.safetensors"));
    let ours: Vec<_> =
        ours.into_iter().map(|(name, tensor)| (name.replacen("text_model.", "", 1), tensor)).collect();
    let theirs = read(&fixture.at("plain/text_encoder/model.safetensors"));
    assert!(ours == theirs.into_iter().collect::<Vec<_>>());
}

#[test]
fn what_a_model_predicts_and_how_large_it_draws_goes_with_it() {
    let fixture = Fixture::unpack();
    let facts = |at: &Path| {
        let checkpoint = Checkpoint::open(at).expect("opens");
        (checkpoint.prediction, checkpoint.native_size)
    };
    let scheduler = "scheduler/scheduler_config.json";
    fs::copy(fixture.at("v").join(scheduler), fixture.at("plain").join(scheduler)).expect("copied");
    let file = convert(&fixture, "plain", "v.safetensors", to(Layout::Ldm));
    assert_eq!(facts(&file), (Prediction::Velocity, (64, 64)));
    let folder = convert(&fixture, "v.safetensors", "v-again", to(Layout::Diffusers));
    assert_eq!(facts(&folder), (Prediction::Velocity, (64, 64)));

    // The configuration beside a file is not beside the new one.
    fs::write(fixture.at("ldm.yaml"), "parameterization: v").expect("written");
    let file = convert(&fixture, "ldm.safetensors", "told.safetensors", AS_IT_IS);
    assert_eq!(facts(&file), (Prediction::Velocity, (512, 512)));
}

/// Of the marks in a file and the configuration beside it the configuration counts, and only the marks go with it.
#[test]
fn what_contradicts_the_marks_goes_with_the_file() {
    let fixture = Fixture::unpack();
    let mut tensors = read(&fixture.at("ldm.safetensors"));
    tensors.insert("v_pred".to_owned(), (safetensors::Dtype::F32, vec![0], vec![]));
    write(&fixture.at("marked.safetensors"), tensors.into_iter());
    let prediction = |at: &Path| Checkpoint::open(at).expect("opens").prediction;
    for (text, expected) in [("parameterization: eps", Prediction::Epsilon), ("{}", Prediction::Velocity)] {
        fs::write(fixture.at("marked.yaml"), text).expect("written");
        assert_eq!(prediction(&fixture.at("marked.safetensors")), expected, "{text}");
        let name = format!("{}.safetensors", expected.name());
        let at = convert(&fixture, "marked.safetensors", &name, AS_IT_IS);
        assert_eq!(prediction(&at), expected, "{text}");
    }
}

#[test]
fn what_makes_no_whole_model_is_refused() {
    let fixture = Fixture::unpack();
    let tensors = read(&fixture.at("ldm.safetensors"));
    let without = |prefix: &str, name: &str| {
        let kept = tensors.clone().into_iter().filter(|(name, _)| !name.starts_with(prefix));
        write(&fixture.at(name), kept);
        fixture.at(name)
    };
    let vae = "first_stage_model.";
    let no_vae = without(vae, "no-vae.safetensors");
    let no_unet = without("model.diffusion_model.", "no-unet.safetensors");
    // Another family's, of which only the UNet is known by its names.
    let others = tensors.iter().filter(|(name, _)| !name.starts_with(vae)).map(|(name, tensor)| {
        (name.replace("cond_stage_model.", "conditioner.embedders.0."), tensor.clone())
    });
    write(&fixture.at("xl.safetensors"), others);
    // Folders of another family, with a VAE and without.
    let copied = |from: &str, to: &str| {
        fs::create_dir_all(fixture.at(to).parent().expect("a folder")).expect("made");
        fs::copy(fixture.at(from), fixture.at(to)).expect("copied");
    };
    let text = "text_encoder/model.safetensors";
    copied(&format!("plain/{text}"), "plain/text_encoder_2/model.safetensors");
    let unet = "unet/diffusion_pytorch_model.safetensors";
    for file in ["model_index.json", unet, text, "text_encoder_2/model.safetensors"] {
        copied(&format!("plain/{file}"), &format!("small/{file}"));
    }
    for (path, layout, reason) in [
        (no_vae, Layout::Diffusers, "no-vae.safetensors: has no VAE, so it makes no folder"),
        (no_unet, Layout::Diffusers, "no-unet.safetensors: has no UNet, so it makes no folder"),
        (fixture.at("xl.safetensors"), Layout::Diffusers, "xl.safetensors: has no VAE"),
        (fixture.at("plain"), Layout::Ldm, "plain: is not of SD 1.x"),
        (fixture.at("small"), Layout::Ldm, "small: is not of SD 1.x"),
        (fixture.at("small"), Layout::Diffusers, "small: has no VAE"),
    ] {
        let error = converted(&path, to(layout)).err().expect(reason).to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn types_change_and_what_has_no_place_is_told() {
    let fixture = Fixture::unpack();
    for (dtype, name) in [(WeightDtype::F16, "f16"), (WeightDtype::Bf16, "bf16"), (WeightDtype::F32, "f32")] {
        let conversion = Conversion { dtype: Some(dtype), ..AS_IT_IS };
        let at = convert(&fixture, "ldm.safetensors", name, conversion);
        let info = inspect(&at).expect("inspects");
        assert_eq!((info.dtype.as_str(), info.dtypes.len()), (name, 1));
    }
    // The numbers are f16's.
    assert!(digests_of(&fixture.at("f16")) == digests_of(&fixture.at("fp16")));
    let back = Conversion { dtype: Some(WeightDtype::F32), ..AS_IT_IS };
    let at = convert(&fixture, "f16", "f32-again", back);
    assert!(digests_of(&at) == digests_of(&fixture.at("ldm.safetensors")));

    let mut tensors = read(&fixture.at("ldm.safetensors"));
    let name = "model.diffusion_model.out.2.bias";
    let (_, _, bytes) = tensors.get_mut(name).expect("there");
    bytes[..4].copy_from_slice(&1e5f32.to_le_bytes());
    write(&fixture.at("large.safetensors"), tensors.into_iter());
    let conversion = Conversion { dtype: Some(WeightDtype::F16), ..AS_IT_IS };
    let conversions = converted(&fixture.at("large.safetensors"), conversion).expect("not read yet");
    let error = write_to(&fixture.at("x"), &conversions).expect_err("refused").to_string();
    assert!(error.contains(name) && error.contains("1e5") && error.contains("f16 cannot hold"), "{error}");
}

#[test]
fn parts_and_averages_are_converted_too() {
    let fixture = Fixture::unpack();
    // A VAE, in the names before 0.11 and in those since.
    for name in ["vae-old.safetensors", "plain/vae/diffusion_pytorch_model.safetensors"] {
        let at = convert(&fixture, name, &name.replace('/', "-").replace("vae", "ldm"), to(Layout::Ldm));
        let info = inspect(&at).expect("inspects");
        assert_eq!((info.kind, info.layout), (FileKind::Vae, Some(Layout::Ldm)), "{name}");
        let q = files::open(&at).expect("opens");
        assert_eq!(q.own_name("decoder.mid.attn_1.q.weight"), Some("decoder.mid.attn_1.q.weight"));
        assert_eq!(q.shape("decoder.mid.attn_1.q.weight"), Some(&[32, 32, 1, 1][..]));
        assert!(digests_of(&at) == digests_of(&fixture.at("vae-old.safetensors")));
    }
    let at = convert(&fixture, "ldm-old.safetensors", "new.safetensors", to(Layout::Diffusers));
    assert!(read(&at) == read(&fixture.at("plain/vae/diffusion_pytorch_model.safetensors")));
    let unet = "plain/unet/diffusion_pytorch_model.safetensors";
    let at = convert(&fixture, unet, "unet.safetensors", to(Layout::Ldm));
    let at = convert(&fixture, &at.display().to_string(), "unet-again", to(Layout::Diffusers));
    assert!(read(&at) == read(&fixture.at(unet)));

    let tensors = read(&fixture.at("ldm.safetensors"));
    let (name, average) = ("model.diffusion_model.out.2.bias", "model_ema.diffusion_modelout2bias");
    let mut both = tensors.clone();
    let mut ones = tensors[name].clone();
    ones.2 = [1f32; 4].into_iter().flat_map(f32::to_le_bytes).collect();
    both.insert(average.to_owned(), ones.clone());
    write(&fixture.at("both.safetensors"), both.clone().into_iter());
    let plain = convert(&fixture, "both.safetensors", "plain-of-both", AS_IT_IS);
    assert!(read(&plain) == both, "all of it");
    let averaged = convert(&fixture, "both.safetensors", "averaged", Conversion { ema: true, ..AS_IT_IS });
    let averaged = read(&averaged);
    assert_eq!((averaged.len(), &averaged[name]), (tensors.len(), &ones));

    let other = fixture.at("lora.safetensors");
    write(&other, [("lora_unet_x.lora_up.weight".to_owned(), tensors[name].clone())].into_iter());
    let at = convert(&fixture, "lora.safetensors", "lora-again", AS_IT_IS);
    assert!(read(&at) == read(&other));
    let error = converted(&other, to(Layout::Ldm)).err().expect("refused").to_string();
    assert!(error.contains("lora.safetensors: holds no network of Stable Diffusion"), "{error}");
    let error = converted(&other, Conversion { ema: true, ..AS_IT_IS }).err().expect("refused").to_string();
    assert!(error.contains("model_ema"), "{error}");
}

#[test]
fn metadata_is_kept_and_writing_can_be_ended() {
    let fixture = Fixture::unpack();
    let metadata = |at: &Path| files::open(at).expect("opens").metadata().clone();
    let wanted = metadata(&fixture.at("ldm.safetensors"));
    assert_eq!(wanted.get("format").map(String::as_str), Some("pt"));
    let at = convert(&fixture, "ldm.safetensors", "again", AS_IT_IS);
    assert_eq!(metadata(&at), wanted);

    let conversions = converted(&fixture.at("plain"), to(Layout::Ldm)).expect("can be converted");
    let mut file = File::create_new(fixture.at("ended")).expect("made");
    let error = conversions.write_file(&mut file, &fixture.at("ended"), &mut |_| Err(Error::Cancelled));
    assert!(matches!(error, Err(Error::Cancelled)));
    let full = File::options().write(true).open("/dev/full");
    if let Ok(mut full) = full {
        let error =
            conversions.write_file(&mut full, Path::new("full"), &mut |_| Ok(())).expect_err("no room");
        assert!(error.to_string().contains("full: cannot be written: No space left"), "{error}");
    }
}
