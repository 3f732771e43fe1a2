//! The text that tunes the whole model: new segments for each epoch, and some that are held out.

use super::epochs::held_out;
use sparsellm_base::{Event, Observer, Result, usage_error};
use sparsellm_text::Segments;
use std::collections::HashSet;

/// As many tokens in a row, at least, have two segments in common that overlap.
const OVERLAP: usize = 32;

/// The text that tunes the whole model.
pub struct Text {
    /// The segments that choose the epoch that is kept. No other segment overlaps with them.
    pub held_out: Segments,
    /// The training segments of each epoch.
    pub epochs: Vec<Segments>,
}

impl Text {
    /// Holds out an eighth as many segments as there are `segments`, the last of all: of `more`, which
    /// the model was not pruned on, if there are any. Each of the `epochs` trains on as many of the
    /// others as there are `segments`, and goes on where the one before ended. If they do not
    /// suffice, they begin again.
    ///
    /// # Errors
    /// If there are fewer than two segments, and the observer's own error.
    pub fn of(
        segments: &Segments,
        more: &Segments,
        epochs: usize,
        observe: &mut Observer,
    ) -> Result<Text> {
        let count = segments.count();
        let mut all: Vec<&[u32]> = segments.iter().chain(more.iter()).collect();
        if all.len() < 2 {
            return usage_error!(
                "tuning needs at least 2 segments of `calibration` text; give a longer text, or leave `tune` out with none"
            );
        }
        let held_out = all.split_off(all.len() - held_out(count));
        let tokens = held_out.concat();
        let held_out = Segments::new(tokens, segments.seq_len);
        let mut training = apart(&all, &held_out);
        if training.len() < all.len().min(count).div_ceil(2) {
            observe.notify(Event::Warning(
                "the text is so short that nearly all segments overlap with the held-out ones, which may therefore keep an epoch that has learnt it by heart; give a longer `calibration` text".into(),
            ))?;
            training = all;
        }
        let size = count.min(training.len());
        let mut endless = training.iter().cycle();
        let epochs = (0..epochs)
            .map(|_| {
                let tokens = endless.by_ref().take(size).flat_map(|s| s.iter().copied());
                Segments::new(tokens.collect(), segments.seq_len)
            })
            .collect();
        Ok(Text { held_out, epochs })
    }
}

/// Those segments that have no [`OVERLAP`] tokens in a row in common with any that is held out.
fn apart<'a>(all: &[&'a [u32]], held_out: &Segments) -> Vec<&'a [u32]> {
    let length = OVERLAP.min(held_out.seq_len).max(1);
    let seen: HashSet<&[u32]> = held_out.iter().flat_map(|s| s.windows(length)).collect();
    let apart = |segment: &&&[u32]| !segment.windows(length).any(|run| seen.contains(run));
    all.iter().filter(apart).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of 64 tokens that begin at these tokens of a text without repetitions.
    fn segments(starts: &[u32]) -> Segments {
        Segments::new(starts.iter().flat_map(|first| *first..first + 64).collect(), 64)
    }

    /// The first token of each segment.
    fn starts(segments: &Segments) -> Vec<u32> {
        segments.iter().map(|segment| segment[0]).collect()
    }

    fn text(segments: &Segments, more: &Segments, epochs: usize) -> (Text, usize) {
        let mut warnings = 0;
        let mut observer = Observer::new(|event| {
            warnings += usize::from(matches!(event, Event::Warning(_)));
            Ok(())
        });
        let text = Text::of(segments, more, epochs, &mut observer).unwrap();
        drop(observer);
        (text, warnings)
    }

    #[test]
    fn every_epoch_has_new_text_and_none_of_the_held_out() {
        // 840 is held out. 880 overlaps with it by 24 tokens, which is not enough, 870 by 34 and 820
        // by 44.
        let first = segments(&[0, 100, 200, 870, 400, 500, 600, 700]);
        let (text, warnings) = text(&first, &segments(&[1000, 880, 820, 1100, 840]), 3);
        assert_eq!(starts(&text.held_out), [840]);
        let epochs: Vec<_> = text.epochs.iter().map(starts).collect();
        assert_eq!(epochs[0], [0, 100, 200, 400, 500, 600, 700, 1000]);
        assert_eq!(epochs[1], [880, 1100, 0, 100, 200, 400, 500, 600]);
        assert_eq!((epochs[2][0], warnings), (700, 0));
    }

    #[test]
    fn segments_that_are_all_there_is_are_trained_on_again() {
        let (text, warnings) = text(&segments(&[0, 100, 200, 300]), &segments(&[]), 2);
        assert_eq!((starts(&text.held_out), warnings), (vec![300], 0));
        assert_eq!(text.epochs.iter().map(starts).collect::<Vec<_>>(), [[0, 100, 200]; 2]);
    }

    #[test]
    fn a_text_that_is_too_short_to_hold_anything_out_is_used_with_a_warning() {
        let overlapping = segments(&[0, 3, 6, 9, 12, 15, 18, 10]);
        let (text, warnings) = text(&overlapping, &segments(&[]), 2);
        assert_eq!((text.epochs[1].count(), warnings), (7, 1));
        let observe = &mut Observer::silent();
        assert!(Text::of(&segments(&[0]), &segments(&[100]), 1, observe).is_ok());
        assert!(Text::of(&segments(&[0]), &segments(&[]), 1, observe).is_err());
    }
}
