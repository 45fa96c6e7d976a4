//! A1111's folders: which kinds they stand for, and where a file of a kind would lie.

use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::LibraryKind;

use super::model_folder::is_model;

/// A1111's folders, for files whose content does not tell their kind.
const FOLDERS: [(&str, LibraryKind); 35] = [
    ("stable-diffusion", LibraryKind::Checkpoint),
    ("vae", LibraryKind::Vae),
    ("vae-approx", LibraryKind::Taesd),
    ("lora", LibraryKind::Lora),
    ("lycoris", LibraryKind::Lora),
    ("embeddings", LibraryKind::Embedding),
    ("hypernetworks", LibraryKind::Hypernetwork),
    ("controlnet", LibraryKind::Controlnet),
    // Its extension has a folder of its own.
    ("sd-webui-controlnet", LibraryKind::Controlnet),
    ("t2iadapter", LibraryKind::Controlnet),
    ("esrgan", LibraryKind::Upscaler),
    ("realesrgan", LibraryKind::Upscaler),
    ("bsrgan", LibraryKind::Upscaler),
    ("scunet", LibraryKind::Upscaler),
    ("swinir", LibraryKind::Upscaler),
    ("dat", LibraryKind::Upscaler),
    ("hat", LibraryKind::Upscaler),
    ("ldsr", LibraryKind::Upscaler),
    ("gfpgan", LibraryKind::Restorer),
    ("codeformer", LibraryKind::Restorer),
    ("adetailer", LibraryKind::Detector),
    ("annotator", LibraryKind::Annotator),
    ("annotators", LibraryKind::Annotator),
    ("clip_vision", LibraryKind::ClipVision),
    ("karlo", LibraryKind::ClipVision),
    ("deepbooru", LibraryKind::Tagger),
    ("torch_deepdanbooru", LibraryKind::Tagger),
    ("blip", LibraryKind::Tagger),
    ("insightface", LibraryKind::FaceModel),
    ("faceswaplab", LibraryKind::FaceModel),
    ("roop", LibraryKind::FaceModel),
    ("faces", LibraryKind::Face),
    ("safety_checker", LibraryKind::Safety),
    ("safety-checker", LibraryKind::Safety),
    ("safety", LibraryKind::Safety),
];

/// Weights that may have another form than safetensors, and are looked at in folders for them alone: elsewhere a .bin may
/// be anything.
pub(super) const OTHER_FORMS: [&str; 6] = ["ckpt", "pt", "pth", "bin", "gguf", "onnx"];

/// Pictures that may carry an embedding; looked at in folders for embeddings.
const CARRIERS: [&str; 2] = ["png", "webp"];

/// A folder that the settings name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Root {
    pub path: PathBuf,
    /// What its files are unless their content says otherwise; `None` for one in A1111's layout.
    pub kind: Option<LibraryKind>,
}

impl Root {
    /// A folder in A1111's layout.
    pub(crate) fn of_models(path: PathBuf) -> Self {
        Self { path, kind: None }
    }
}

impl From<PathBuf> for Root {
    fn from(path: PathBuf) -> Self {
        Self::of_models(path)
    }
}

/// How A1111 calls the folder that new files of a kind belong in.
pub(super) fn folder_of(kind: LibraryKind) -> &'static str {
    match kind {
        LibraryKind::Checkpoint => "Stable-diffusion",
        LibraryKind::Vae => "VAE",
        LibraryKind::Taesd => "VAE-approx",
        LibraryKind::Lora => "Lora",
        LibraryKind::Controlnet => "ControlNet",
        LibraryKind::Upscaler => "ESRGAN",
        LibraryKind::Restorer => "GFPGAN",
        other => FOLDERS.iter().find(|(_, kind)| *kind == other).map_or("models", |(name, _)| *name),
    }
}

/// The kind that a folder of this name stands for.
pub(super) fn folder_kind(folder: &Path) -> Option<LibraryKind> {
    let name = folder.file_name()?.to_str()?;
    FOLDERS.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// The kind of what lies in `folder`, which lies in one of `outer`: the outermost of A1111's folders decides, but for the
/// faces that are kept beside the networks for them.
pub(super) fn inner_kind(outer: Option<LibraryKind>, folder: &Path) -> Option<LibraryKind> {
    match (outer, folder_kind(folder)) {
        (Some(LibraryKind::FaceModel), Some(LibraryKind::Face)) => Some(LibraryKind::Face),
        (None, kind) => kind,
        (outer, _) => outer,
    }
}

/// The extension of a file's name, in lower case.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase()
}

/// Whether a file of this name, in a folder for a kind, is a picture that may carry an embedding. A1111 takes
/// `NAME.preview.png` for a preview, whatever is in it.
pub(super) fn may_carry(path: &Path, folder: Option<LibraryKind>) -> bool {
    let is_preview = || path.file_stem().is_some_and(|stem| extension(Path::new(stem)) == "preview");
    folder == Some(LibraryKind::Embedding) && CARRIERS.contains(&extension(path).as_str()) && !is_preview()
}

/// Whether a file that cannot be read might be meant for this kind: it lies in no folder for anything else.
pub(super) fn may_be(kind: LibraryKind, roots: &[Root], path: &Path) -> bool {
    outermost_kind(roots, path).is_none_or(|folder| folder == kind)
}

/// The kind of the folder that the file lies in, as in the walk.
pub(super) fn outermost_kind(roots: &[Root], path: &Path) -> Option<LibraryKind> {
    let root = root_of(roots, path);
    let outer = root.and_then(|root| root.kind);
    folders_between(root, path).into_iter().rev().fold(outer, inner_kind)
}

/// The outermost folder for a kind that the file lies in: one of A1111's, or one that the settings name for a kind.
pub(super) fn outermost_folder<'a>(roots: &'a [Root], path: &'a Path) -> Option<&'a Path> {
    let root = root_of(roots, path);
    if let Some(root) = root.filter(|root| root.kind.is_some()) {
        return Some(&root.path);
    }
    folders_between(root, path).into_iter().rev().find(|folder| folder_kind(folder).is_some())
}

/// The folder of the settings that a path lies in; of several the innermost.
pub(super) fn root_of<'a>(roots: &'a [Root], path: &Path) -> Option<&'a Root> {
    let inside = roots.iter().filter(|root| path.starts_with(&root.path));
    inside.max_by_key(|root| root.path.as_os_str().len())
}

/// The folders that a file lies in, from the inside out, without the root.
fn folders_between<'a>(root: Option<&Root>, path: &'a Path) -> Vec<&'a Path> {
    let is_inside = |folder: &&Path| root.is_none_or(|root| *folder != root.path.as_path());
    path.ancestors().skip(1).take_while(is_inside).collect()
}

/// Where a file of this kind and name would lie: in the roots themselves, or in the folders of its kind in them. A name may
/// be a path inside a root. Only folders are read here, one each, however many files there are, and only those of which
/// `is_here` says so.
pub(super) fn places(
    roots: &[Root],
    kind: LibraryKind,
    wanted: &str,
    is_here: &dyn Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut add = |base: &Path| {
        let base = base.join(wanted);
        let with = |extension: &str| {
            let mut path = base.clone().into_os_string();
            path.push(".");
            path.push(extension);
            PathBuf::from(path)
        };
        let pictures = CARRIERS.iter().filter(|_| kind == LibraryKind::Embedding);
        let extensions = ["safetensors"].iter().chain(&OTHER_FORMS).chain(pictures);
        places.extend(extensions.map(|extension| with(extension)).chain([base.clone()]));
    };
    for root in roots.iter().filter(|root| is_here(&root.path)) {
        add(&root.path);
        let children = fs::read_dir(&root.path).into_iter().flatten().flatten().map(|entry| entry.path());
        children.filter(|child| folder_kind(child) == Some(kind)).for_each(|child| add(&child));
    }
    places.retain(|path| {
        let found = if is_here(path) { fs::metadata(path).ok() } else { None };
        found.is_some_and(|found| found.is_file() || (found.is_dir() && is_model(path)))
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_carry_embeddings_in_folders_for_them_and_previews_none() {
        use LibraryKind as K;
        for (name, folder, expected) in [
            ("a.png", Some(K::Embedding), true),
            ("a.b.WebP", Some(K::Embedding), true),
            ("preview.png", Some(K::Embedding), true),
            ("a.preview.png", Some(K::Embedding), false),
            ("a.PREVIEW.webp", Some(K::Embedding), false),
            ("a.jpg", Some(K::Embedding), false),
            ("a.pt", Some(K::Embedding), false),
            ("a.png", Some(K::Lora), false),
            ("a.png", None, false),
        ] {
            assert_eq!(may_carry(Path::new(name), folder), expected, "{name}");
        }
    }

    #[test]
    fn the_folder_for_a_kind_is_found_in_every_root() {
        use LibraryKind as K;
        let roots = [
            Root::of_models("/m".into()),
            Root { path: "/m/elsewhere".into(), kind: Some(K::Vae) },
            Root { path: "/l".into(), kind: Some(K::Lora) },
        ];
        let rows = [
            ("/m/x.safetensors", None, None),
            ("/m/Lora/x.safetensors", Some(K::Lora), Some("/m/Lora")),
            ("/m/a/lora/VAE/x.safetensors", Some(K::Lora), Some("/m/a/lora")),
            ("/m/faceswaplab/x.onnx", Some(K::FaceModel), Some("/m/faceswaplab")),
            ("/m/faceswaplab/faces/x.safetensors", Some(K::Face), Some("/m/faceswaplab")),
            ("/m/Lora/faces/x.safetensors", Some(K::Lora), Some("/m/Lora")),
            ("/m/elsewhere/x.pt", Some(K::Vae), Some("/m/elsewhere")),
            ("/l/x.pt", Some(K::Lora), Some("/l")),
            ("/l/embeddings/x.pt", Some(K::Lora), Some("/l")),
            (
                "/m/extensions/sd-webui-controlnet/models/x.pth",
                Some(K::Controlnet),
                Some("/m/extensions/sd-webui-controlnet"),
            ),
        ];
        for (path, kind, folder) in rows {
            let path = Path::new(path);
            assert_eq!(outermost_kind(&roots, path), kind, "{}", path.display());
            assert_eq!(outermost_folder(&roots, path), folder.map(Path::new), "{}", path.display());
        }
    }
}
