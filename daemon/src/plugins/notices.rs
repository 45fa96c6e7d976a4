//! What plugins want to be told, with their names before it.

/// What one plugin may want to be told of a job.
pub(super) const MOST_NOTICES: usize = 64;

/// A text of a plugin's.
pub(super) fn of(plugin: &str, text: &str) -> String {
    format!("plugin '{plugin}': {text}")
}

/// Keeps a text beside others, each once, and of one plugin as many as there may be.
pub(super) fn keep(heard: &mut Vec<String>, plugin: &str, text: &str) {
    let text = of(plugin, text);
    if heard.contains(&text) {
        return;
    }
    let begins = of(plugin, "");
    match heard.iter().filter(|notice| notice.starts_with(&begins)).count() {
        count if count < MOST_NOTICES => heard.push(text),
        MOST_NOTICES => heard.push(of(plugin, "it has more to say, which is left out")),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_kept_once_and_of_each_plugin_so_many() {
        let mut heard = vec![];
        keep(&mut heard, "b", "first");
        for text in 0..100 {
            keep(&mut heard, "a", &text.to_string());
            keep(&mut heard, "a", "0");
        }
        keep(&mut heard, "b", "last");
        assert_eq!(heard.len(), MOST_NOTICES + 3);
        assert_eq!(heard[1], "plugin 'a': 0");
        assert_eq!(heard[MOST_NOTICES], "plugin 'a': 63");
        assert_eq!(heard[MOST_NOTICES + 1], "plugin 'a': it has more to say, which is left out");
        assert_eq!(heard[MOST_NOTICES + 2], "plugin 'b': last");
    }
}
