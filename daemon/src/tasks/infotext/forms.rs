//! Infotexts whose lines are not where A1111 has them: in one line, as sites and logs show them, or with more lines behind.

use latentd_models::image::Infotext;

/// What begins the line of pairs.
const PAIRS: &str = "Steps: ";
const NEGATIVE: &str = "Negative prompt:";

/// Takes a text apart. What A1111 would take for a prompt alone is looked at for a line of pairs.
pub(super) fn parse(text: &str) -> Infotext {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let whole = Infotext::parse(text);
    let no_prompts = whole.prompt.is_empty() && whole.negative_prompt.is_empty();
    let last_line = text.trim_end().rsplit('\n').next().unwrap_or_default();
    let begins_with_pairs = [text, last_line].iter().any(|lines| lines.trim_start().starts_with(PAIRS));
    let found = if whole.fields.is_empty() {
        with_more_lines(text)
    } else if no_prompts && !begins_with_pairs {
        in_one_line(text)
    } else {
        None
    };
    found.unwrap_or(whole)
}

/// The text up to the last line of pairs. What is behind it is an extension's.
fn with_more_lines(text: &str) -> Option<Infotext> {
    let mut end = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        end += line.len();
        if line.trim_start().starts_with(PAIRS) {
            found = Some(end);
        }
    }
    let parsed = Infotext::parse(text.get(..found?)?);
    (!parsed.fields.is_empty()).then_some(parsed)
}

/// `PROMPT Negative prompt: … Steps: …`.
fn in_one_line(text: &str) -> Option<Infotext> {
    let start = text.rfind(PAIRS).filter(|start| text[..*start].ends_with(char::is_whitespace))?;
    let (prompts, pairs) = text.split_at(start);
    let fields = Infotext::parse(pairs).fields;
    let (prompt, negative_prompt) = prompts.split_once(NEGATIVE).unwrap_or((prompts, ""));
    (!fields.is_empty()).then(|| Infotext {
        prompt: prompt.trim().to_owned(),
        negative_prompt: negative_prompt.trim().to_owned(),
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_wherever_they_stand() {
        let pairs = "Steps: 20, Sampler: Euler, Seed: 1";
        for (text, prompt, negative, count) in [
            (format!("a cat\nNegative prompt: dog\n{pairs}"), "a cat", "dog", 3),
            (
                format!("a cat\nNegative prompt: dog\n{pairs}\nTemplate: a {{cat|dog}}\n\nmore"),
                "a cat",
                "dog",
                3,
            ),
            (format!("\u{feff}a cat Negative prompt: dog {pairs}"), "a cat", "dog", 3),
            (format!("a cat, {pairs}"), "a cat,", "", 3),
            (format!("a cat\n{pairs}\nNegative prompt: x"), "a cat", "", 3),
            (pairs.to_owned(), "", "", 3),
            (format!("Negative prompt: \n{pairs}, Regions: \"{pairs}\""), "", "", 4),
            // A prompt that speaks of steps.
            ("Steps: 20, a cat".to_owned(), "Steps: 20, a cat", "", 0),
            (format!("{pairs}\n{pairs}"), pairs, "", 3),
        ] {
            let found = parse(&text);
            assert_eq!((found.prompt.as_str(), found.negative_prompt.as_str()), (prompt, negative), "{text}");
            assert_eq!(found.fields.len(), count, "{text}");
        }
    }
}
