#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sparsellm_fuzz::chat_template(bytes));
