//! Pictures that plugins leave beside the results.

use latentd_models::image::Picture;

use crate::memory::Lease;

/// How many one drawing may leave.
pub(crate) const MOST_ARTIFACTS: usize = 256;
/// Bytes of their pixels together.
pub(crate) const ARTIFACT_BYTES: usize = 128 << 20;

/// Takes what a plugin leaves, as far as there may be so much; what to tell if there is more.
pub(super) fn add(kept: &mut Vec<Artifact>, more: Vec<Artifact>) -> Option<(String, String)> {
    let mut bytes: usize = kept.iter().map(|artifact| artifact.picture.pixels.len()).sum();
    let mut told = None;
    for artifact in more {
        bytes += artifact.picture.pixels.len();
        if kept.len() >= MOST_ARTIFACTS || bytes > ARTIFACT_BYTES {
            bytes -= artifact.picture.pixels.len();
            told.get_or_insert((artifact.plugin, left_out()));
            continue;
        }
        kept.push(artifact);
    }
    told
}

/// What to tell of a plugin that leaves more.
pub(crate) fn left_out() -> String {
    let most = ARTIFACT_BYTES >> 20;
    format!(
        "it leaves more pictures beside the results than the {MOST_ARTIFACTS}, of {most} MiB of pixels, that are kept"
    )
}

/// A picture that a plugin leaves beside the results.
pub(crate) struct Artifact {
    /// Whose it is.
    pub plugin: String,
    /// What it is, in the plugin's words.
    pub name: String,
    /// Which of the drawing's pictures it belongs to; of all if `None`.
    pub image: Option<usize>,
    pub picture: Picture,
    /// Its memory, until it is packed.
    pub lease: Lease,
}

#[cfg(test)]
mod tests {
    use latentd_models::image::Channels;

    use super::*;
    use crate::memory::Budget;

    #[test]
    fn what_is_more_than_there_may_be_is_left_out_and_told() {
        let artifact = |side: usize| Artifact {
            plugin: "a".to_owned(),
            name: "b".to_owned(),
            image: None,
            picture: Picture {
                width: side,
                height: side,
                channels: Channels::Grey,
                pixels: vec![0; side * side],
            },
            lease: Budget::new(1).try_reserve(0).expect("room"),
        };
        let mut kept = vec![];
        assert_eq!(add(&mut kept, (0..MOST_ARTIFACTS).map(|_| artifact(1)).collect()), None);
        let told = add(&mut kept, vec![artifact(1)]).expect("told");
        assert!(
            told.0 == "a" && told.1.contains("more pictures beside the results than the 256"),
            "{told:?}"
        );
        assert_eq!(kept.len(), MOST_ARTIFACTS);
        let side = 1 << 13;
        let mut kept = vec![artifact(side)];
        assert!(add(&mut kept, vec![artifact(side), artifact(1), artifact(1)]).is_some());
        assert_eq!(kept.len(), 2);
    }
}
