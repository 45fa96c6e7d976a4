//! Prompts among plugins' parameters: texts that a schema marks with `x-prompt`, which may have one for each picture.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::keywords;
use super::parameters;

/// The schema keyword, and what it says of a text that is steered away from.
const KEYWORD: &str = "x-prompt";
const NEGATIVE: &str = "negative";

/// A prompt among a plugin's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParamPrompt {
    /// Where in the parameters, as a JSON pointer.
    pub pointer: String,
    pub is_negative: bool,
}

/// Those in valid parameters, in their order.
pub(super) fn prompts(schema: &Json, params: &Json) -> Result<Vec<ParamPrompt>, String> {
    let places = keywords::places(schema, params)?.into_iter();
    let places = places.filter(|place| place.keyword == KEYWORD);
    let texts = places.filter(|place| params.pointer(&place.pointer).is_some_and(Json::is_string));
    Ok(texts.map(|place| ParamPrompt { is_negative: place.of == NEGATIVE, pointer: place.pointer }).collect())
}

/// Texts for each picture of those prompts that have one for each, by their pointers.
pub(crate) type Lists = BTreeMap<String, Vec<String>>;

/// The same of all plugins of a request, by their names. In the parameters themselves the text of the first picture stands.
pub(crate) type PromptLists = BTreeMap<String, Lists>;

/// The parameters of one picture.
pub(super) fn of_picture(params: &Json, lists: &Lists, picture: usize) -> Json {
    let mut params = params.clone();
    for (pointer, texts) in lists {
        if let Some(place) = params.pointer_mut(pointer) {
            *place = texts.get(picture).map_or(Json::Null, |text| text.as_str().into());
        }
    }
    params
}

/// Bytes of the parameters of all pictures together that are looked at.
const MOST_BYTES: usize = 256 << 20;

/// That each list has a text for each picture, and that the parameters of each picture are valid.
pub(super) fn check(schema: &Json, params: &Json, lists: &Lists, pictures: usize) -> Result<(), String> {
    let bytes = params.to_string().len().saturating_mul(pictures);
    if bytes > MOST_BYTES {
        return Err(format!(
            "for each of {pictures} pictures they are {bytes} bytes together, {MOST_BYTES} are allowed; draw fewer at a time"
        ));
    }
    for (pointer, texts) in lists {
        if texts.len() != pictures {
            return Err(format!(
                "{pointer}: a list of {} texts for {pictures} pictures; give one for each",
                texts.len()
            ));
        }
    }
    parameters::validate_each(schema, (0..pictures).map(|picture| of_picture(params, lists, picture)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_looked_at_picture_by_picture() {
        let schema = json!({
            "type": "object",
            "properties": {
                "passes": {"items": {"properties": {"prompt": {"type": "string", "maxLength": 3, "x-prompt": true}}}},
                "not": {"type": "string", "x-prompt": "negative"},
                "number": {"x-prompt": true},
                "other": {"type": "string"},
            },
        });
        let params =
            json!({"passes": [{"prompt": "a"}, {"prompt": "b"}], "not": "", "number": 5, "other": ""});
        let found = prompts(&schema, &params).expect("walked");
        let found: Vec<(&str, bool)> =
            found.iter().map(|prompt| (prompt.pointer.as_str(), prompt.is_negative)).collect();
        let expected = [("/not", true), ("/passes/0/prompt", false), ("/passes/1/prompt", false)];
        assert_eq!(found, expected);

        let lists = |texts: &[&str]| -> Lists {
            [("/passes/1/prompt".to_owned(), texts.iter().map(|&text| text.to_owned()).collect())].into()
        };
        let two = lists(&["b", "c"]);
        assert_eq!(of_picture(&params, &two, 1)["passes"][1]["prompt"], "c");
        assert_eq!(of_picture(&params, &two, 1)["passes"][0]["prompt"], "a");
        assert_eq!(check(&schema, &params, &two, 2), Ok(()));
        let error = check(&schema, &params, &two, 3).expect_err("too few");
        assert_eq!(error, "/passes/1/prompt: a list of 2 texts for 3 pictures; give one for each");
        let error = check(&schema, &params, &lists(&["b", "long"]), 2).expect_err("too long");
        assert_eq!(error, "/passes/1/prompt: 'long' is longer than 3 characters");
    }
}
