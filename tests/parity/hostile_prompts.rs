//! Prompts of 64 KB that are as bad for a reader as we know.

/// All of them.
pub fn hostile_prompts() -> Vec<String> {
    let repeated = |text: &str| text.repeat(64 * 1024 / text.len());
    let halves = |open: &str, close: &str| {
        open.repeat(32 * 1024 / open.len()) + &close.repeat(32 * 1024 / close.len())
    };
    vec![
        repeated("["),
        repeated("]"),
        repeated("[|]"),
        repeated("[a|b]"),
        repeated("[a:b:.5]"),
        repeated("[a:1]"),
        repeated("[:"),
        repeated("[a|"),
        repeated("|"),
        repeated("\\"),
        repeated("[a|b|c][d|e|f|g][h|i|j|k|l] "),
        repeated("[|a][||a][||||a][||||||a][||||||||||a]"),
        repeated("[a|b][c|d|e][f|g|h|i|j][k|l|m|n|o|p|q]"),
        (1..=1000).map(|step| format!("[{step}:{step}]")).collect::<Vec<_>>().concat(),
        repeated("a"),
        repeated("é"),
        repeated("🗼"),
        repeated("0"),
        repeated("a, "),
        repeated("\u{301}"),
        repeated("AND "),
        repeated(" BREAK"),
        repeated(" :1 "),
        repeated("[a AND b:3]"),
        repeated("[a:b:                                                     "),
        halves("[", "]"),
        halves("[", ":.5]"),
        halves("[a|", "]"),
        halves("[x:", ":3]"),
        halves("(", ")"),
        halves("[(", ":3)"),
        format!("[a|b] {}", repeated("word ")),
        format!("[a|{}]", repeated("b|")),
        format!("[a:b:{}]", repeated("9")),
        format!("[a:b:{}]", repeated(" ")),
        format!("[a:b:1{}]", repeated("\u{3000}")),
    ]
}
