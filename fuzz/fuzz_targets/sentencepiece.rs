#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sparsellm_fuzz::sentencepiece(bytes));
