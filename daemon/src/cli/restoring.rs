//! Flags of `generate` for faces that are restored.

use clap::Args;
use latentd_client::protocol::Txt2ImgParams;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(next_help_heading = "Faces")]
pub(super) struct RestoringArgs {
    /// Restore faces in the pictures
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    restore_faces: Option<bool>,
    /// By what: CodeFormer, GFPGAN, or a plugin's restorer [default: CodeFormer]
    #[arg(long, value_name = "NAME")]
    face_restoration_model: Option<String>,
    /// How close CodeFormer stays to the picture: 0 changes most, 1 least [default: 0.5]
    #[arg(long, value_name = "X")]
    code_former_weight: Option<f64>,
}

impl RestoringArgs {
    /// The request with what was given.
    pub(super) fn over(&self, request: Txt2ImgParams) -> Txt2ImgParams {
        Txt2ImgParams {
            restore_faces: self.restore_faces.unwrap_or(request.restore_faces),
            face_restoration_model: self
                .face_restoration_model
                .clone()
                .unwrap_or(request.face_restoration_model),
            code_former_weight: self.code_former_weight.unwrap_or(request.code_former_weight),
            ..request
        }
    }
}
