//! Rewrites the library's messages for the command line: the field `` `block_size` `` becomes
//! the flag `--block-size`.

use crate::args::Args;
use clap::CommandFactory;

/// The message, with every field that it names in backticks replaced by this command's flag.
pub fn as_flags(message: &str) -> String {
    let mut out = String::new();
    let mut parts = message.split('`');
    out.push_str(parts.next().unwrap_or_default());
    while let Some(quoted) = parts.next() {
        let after = parts.next();
        match flag(quoted).filter(|_| after.is_some()) {
            Some(flag) => out.push_str(&flag),
            None => {
                out.push('`');
                out.push_str(quoted);
                out.push_str(if after.is_some() { "`" } else { "" });
            }
        }
        out.push_str(after.unwrap_or_default());
    }
    out
}

/// The flag that sets a field, if any command has one.
fn flag(field: &str) -> Option<String> {
    let long = field.replace('_', "-");
    let command = Args::command();
    let has = |command: &clap::Command| {
        command.get_arguments().any(|arg| arg.get_long() == Some(long.as_str()))
    };
    (has(&command) || command.get_subcommands().any(has)).then(|| format!("--{long}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_flags_and_all_else_stays() {
        let shown = as_flags("`block_size` 3 with `sparsellm eval` and `true_sequential`, `");
        assert_eq!(shown, "--block-size 3 with `sparsellm eval` and --true-sequential, `");
    }
}
