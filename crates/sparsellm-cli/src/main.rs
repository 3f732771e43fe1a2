//! The `sparsellm` command.

fn main() -> std::process::ExitCode {
    sparsellm_cli::main()
}
