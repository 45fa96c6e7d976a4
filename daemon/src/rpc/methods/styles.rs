//! `styles.*`: texts around prompts, by name.

use latentd_client::protocol::{DeleteStyleParams, Empty, SaveStyleParams, StyleEntry, StyleList};

use super::row::{Method, Session, quick};
use crate::error::Result;
use crate::styles::Style;

pub(super) fn methods() -> Vec<Method> {
    vec![
        quick("styles.list", |daemon| &daemon.lookers, list),
        quick("styles.save", |daemon| &daemon.lookers, save),
        quick("styles.delete", |daemon| &daemon.lookers, delete),
    ]
}

fn list(session: &Session, _: Empty) -> Result<StyleList> {
    let studio = &session.daemon.studio;
    let found = studio.styles.all(&studio.settings.get().styles_dirs, &studio.folders);
    let styles = found.styles.iter().map(|style| entry(session, style)).collect();
    Ok(StyleList { styles, problems: found.problems })
}

fn save(session: &Session, params: SaveStyleParams) -> Result<StyleEntry> {
    let SaveStyleParams { name, prompt, negative_prompt } = params;
    let style = Style { name, prompt, negative_prompt, ..Style::default() };
    session.daemon.studio.styles.save(style).map(|style| entry(session, &style))
}

fn delete(session: &Session, params: DeleteStyleParams) -> Result<StyleEntry> {
    let studio = &session.daemon.studio;
    let deleted = studio.styles.delete(&params.name, &studio.settings.get().styles_dirs, &studio.folders);
    deleted.map(|style| entry(session, &style))
}

fn entry(session: &Session, style: &Style) -> StyleEntry {
    let saved = session.daemon.studio.styles.is_own(style);
    let Style { name, prompt, negative_prompt, path } = style.clone();
    StyleEntry { name, prompt, negative_prompt, path: path.to_string_lossy().into_owned(), saved }
}
