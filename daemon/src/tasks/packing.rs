//! From pixels to what a request asked for, one picture after the other. What was drawn is never lost: where a folder
//! fails, pictures go into the daemon's own, and where that fails too, into the answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use latentd_client::protocol::{Bytes, ImageOut};
use latentd_models::image::{Beside, Picture, PictureFormat, Sample};
use tracing::warn;

use super::output::Output;
use crate::error::{Class, Error, Result};
use crate::folders::{Folders, Unwritten};
use crate::state_dir::make_private;
use crate::whole_file;

/// The pictures of one job while they are packed. Its files are removed with it, unless it is [finished](Self::finish).
pub(super) struct Packing<'a> {
    output: &'a Output,
    own: &'a Path,
    folders: &'a Folders,
    job: &'a str,
    cancelled: &'a dyn Fn() -> bool,
    /// Folders that failed, and why: they are not tried again.
    failed: Vec<(PathBuf, String)>,
    written: Vec<PathBuf>,
    /// What the daemon's own folder has because another failed.
    moved: Vec<PathBuf>,
    /// How many files are in the answer instead.
    sent: usize,
}

impl<'a> Packing<'a> {
    /// For the pictures of `job`; `own` is the daemon's own folder.
    pub(super) fn new(
        output: &'a Output,
        own: &'a Path,
        folders: &'a Folders,
        job: &'a str,
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        let (failed, written, moved) = (Vec::new(), Vec::new(), Vec::new());
        Self { output, own, folders, job, cancelled, failed, written, moved, sent: 0 }
    }

    /// Packs image number `index`, with its opacity if it has any and the format does.
    pub(super) fn pack(
        &mut self,
        image: Picture,
        seed: u64,
        infotext: String,
        index: usize,
    ) -> Result<ImageOut> {
        let packed = self.pack_beside(image, &Beside { infotext: &infotext, ..Beside::default() }, index)?;
        Ok(ImageOut { seed: Some(seed), infotext: Some(infotext), ..packed })
    }

    /// The same of one that is drawn from no seed, with more beside its pixels, and with its 16 bits where the format has them.
    pub(super) fn pack_beside<S: Sample>(
        &mut self,
        image: Picture<S>,
        beside: &Beside<'_>,
        index: usize,
    ) -> Result<ImageOut> {
        let (width, height) = (image.width as u32, image.height as u32);
        let mut packed = ImageOut { width, height, ..Default::default() };
        match self.output {
            Output::Encoded(format) => {
                let bytes = Some(Bytes(image.encode_with(*format, beside)?));
                match format {
                    PictureFormat::Png => packed.png = bytes,
                    PictureFormat::Jpeg => packed.jpeg = bytes,
                    PictureFormat::WebP => packed.webp = bytes,
                }
            }
            Output::Raw => {
                packed.channels = Some(image.channels.count() as u32);
                packed.raw = Some(Bytes(image.into_8_bits().pixels));
            }
            Output::Files(dir) | Output::OwnFiles(dir) => {
                let png = Arc::new(image.encode_with(PictureFormat::Png, beside)?);
                match self.write(dir, &png, &index.to_string())? {
                    Some(path) => packed.path = Some(path.display().to_string()),
                    None => packed.png = Some(Bytes(Arc::unwrap_or_clone(png))),
                }
            }
        }
        Ok(packed)
    }

    /// Packs picture number `index` of those that plugins left beside the results: always without loss.
    pub(super) fn pack_artifact(&mut self, picture: Picture, index: usize) -> Result<ImageOut> {
        let (width, height) = (picture.width as u32, picture.height as u32);
        let mut packed = ImageOut { width, height, ..Default::default() };
        match self.output {
            Output::Raw => {
                packed.channels = Some(picture.channels.count() as u32);
                packed.raw = Some(Bytes(picture.pixels));
            }
            Output::Encoded(_) => packed.png = Some(Bytes(picture.to_png()?)),
            Output::Files(dir) | Output::OwnFiles(dir) => {
                let png = Arc::new(picture.to_png()?);
                match self.write(dir, &png, &format!("artifact-{index}"))? {
                    Some(path) => packed.path = Some(path.display().to_string()),
                    None => packed.png = Some(Bytes(Arc::unwrap_or_clone(png))),
                }
            }
        }
        Ok(packed)
    }

    /// Writes a file into `dir`, else into our own folder; `None` if neither takes it.
    fn write(&mut self, dir: &Path, png: &Arc<Vec<u8>>, ending: &str) -> Result<Option<PathBuf>> {
        let own = (dir != self.own).then_some(self.own);
        for folder in std::iter::once(dir).chain(own) {
            if self.failed.iter().any(|(failed, _)| failed == folder) {
                continue;
            }
            let is_own = folder == self.own;
            let path = folder.join(format!("{}-{ending}.png", self.job));
            let png = Arc::clone(png);
            let work = move |path: &Path| {
                // Ours is made anew if somebody removed it.
                path.parent().filter(|_| is_own).map_or(Ok(()), make_private)?;
                whole_file::write(path, &png)
            };
            match self.folders.write(folder, path.clone(), work, self.cancelled) {
                Ok(()) => {
                    self.written.push(path.clone());
                    if folder != dir {
                        self.moved.push(path.clone());
                    }
                    return Ok(Some(path));
                }
                Err(why @ Unwritten::Cancelled) => return Err(Error::new(Class::Cancelled, why.to_string())),
                Err(why) => {
                    warn!(job = self.job, folder = %folder.display(), %why, "a picture cannot be written");
                    self.failed.push((folder.to_owned(), why.to_string()));
                }
            }
        }
        self.sent += 1;
        Ok(None)
    }

    /// All are packed, and what was written stays. What to tell who asked: where pictures are that could not be written
    /// where they should be.
    pub(super) fn finish(mut self) -> Result<Vec<String>> {
        // Its result is not told, so its files go.
        if (self.cancelled)() {
            return Err(Error::new(Class::Cancelled, "cancelled as it was about to end"));
        }
        self.written.clear();
        let mut failed = self.failed.iter();
        let cannot =
            |(folder, why): &(PathBuf, String)| format!("cannot write into {}: {why}", folder.display());
        let Some(first) = failed.next().map(cannot) else {
            return Ok(Vec::new());
        };
        let mut told = vec![first];
        match self.moved.as_slice() {
            [] => {}
            [path] => told.push(format!("the picture is {} now", path.display())),
            paths => told.push(format!("{} pictures are in {} now", paths.len(), self.own.display())),
        }
        told.extend(failed.map(cannot));
        match self.sent {
            0 => {}
            1 => told.push("a picture is in the answer, as png".to_owned()),
            sent => told.push(format!("{sent} pictures are in the answer, as png")),
        }
        Ok(vec![told.join("; ")])
    }
}

impl Drop for Packing<'_> {
    fn drop(&mut self) {
        // Of a job that failed nobody is told where its files are.
        let written = std::mem::take(&mut self.written);
        if !written.is_empty() {
            self.folders.remove(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use latentd_models::image::Channels;

    use super::*;

    fn image() -> Picture {
        Picture { width: 1, height: 1, channels: Channels::Rgb, pixels: vec![0; 3] }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("listed");
        entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_was_drawn_is_never_lost() {
        let root = tempfile::tempdir().expect("a folder");
        let (gone, own) = (root.path().join("gone"), root.path().join("own"));
        let folders = Folders::new();
        let output = Output::Files(gone.clone());
        let mut packing = Packing::new(&output, &own, &folders, "job", &|| false);
        let moved = packing.pack(image(), 1, "x".into(), 0).expect("packed");
        assert_eq!(moved.path.as_deref().map(Path::new), Some(own.join("job-0.png").as_path()));
        let told = packing.finish().expect("finished").pop().expect("told");
        for part in [&gone, &own.join("job-0.png")] {
            assert!(told.contains(&part.display().to_string()) && told.contains("make it first"), "{told}");
        }
        assert_eq!(names(&own), ["job-0.png"]);

        // Neither folder can be written.
        let file = root.path().join("file");
        fs::write(&file, "x").expect("written");
        for output in [Output::Files(gone), Output::OwnFiles(file.clone())] {
            let mut packing = Packing::new(&output, &file, &folders, "job", &|| false);
            for index in 0..2 {
                let sent = packing.pack(image(), 1, "x".into(), index).expect("packed");
                assert!(sent.path.is_none() && sent.png.is_some_and(|png| png.0.starts_with(b"\x89PNG")));
            }
            let told = packing.finish().expect("finished").pop().expect("told");
            assert!(told.contains("2 pictures are in the answer"), "{told}");
            assert!(told.contains(&file.display().to_string()), "{told}");
        }
    }

    #[test]
    fn a_folder_that_does_not_answer_is_not_waited_for() {
        let root = tempfile::tempdir().expect("a folder");
        let (share, own) = (root.path().join("share"), root.path().join("own"));
        fs::create_dir(&share).expect("made");
        let folders = Folders::new();
        let _silent = folders.silence(&share);
        let output = Output::Files(share.clone());
        let mut packing = Packing::new(&output, &own, &folders, "job", &|| false);
        let moved = packing.pack(image(), 1, "x".into(), 0).expect("packed");
        assert!(moved.path.is_some_and(|path| Path::new(&path).starts_with(&own)));
        assert!(packing.finish().expect("finished").iter().any(|told| told.contains("does not answer")));
        assert!(names(&share).is_empty());
    }

    #[test]
    fn nothing_stays_of_a_job_that_fails() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = Folders::new();
        let output = Output::Files(root.path().to_owned());
        let mut packing = Packing::new(&output, Path::new("/own"), &folders, "job", &|| false);
        packing.pack(image(), 1, "x".into(), 0).expect("packed");
        assert_eq!(names(root.path()), ["job-0.png"]);
        drop(packing);
        while !names(root.path()).is_empty() {
            std::thread::yield_now();
        }
    }
}
