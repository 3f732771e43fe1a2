//! The tasks by name.

use serde::Serialize;

/// A zero-shot task of lm-evaluation-harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Task {
    /// LAMBADA asks for the last word of a passage (Paperno et al., 2016, in
    /// OpenAI's version).
    LambadaOpenai,
    /// HellaSwag asks how a scene goes on (Zellers et al., 2019).
    HellaSwag,
    /// PIQA asks how something is done (Bisk et al., 2020).
    Piqa,
    /// WinoGrande asks whom a pronoun means (Sakaguchi et al., 2020).
    WinoGrande,
    /// ARC's easy part asks questions of school science (Clark et al., 2018).
    ArcEasy,
    /// ARC's hard part asks those that simple methods get wrong.
    ArcChallenge,
    /// BoolQ asks a question of yes or no after a passage (Clark et al., 2019).
    BoolQ,
    /// RTE asks whether a sentence follows from another (GLUE).
    Rte,
    /// OpenBookQA asks questions of elementary science (Mihaylov et al., 2018).
    OpenBookQa,
}

impl Task {
    /// All tasks, in the order in which they are listed to users.
    pub const ALL: [Task; 9] = [
        Task::LambadaOpenai,
        Task::HellaSwag,
        Task::Piqa,
        Task::WinoGrande,
        Task::ArcEasy,
        Task::ArcChallenge,
        Task::BoolQ,
        Task::Rte,
        Task::OpenBookQa,
    ];

    /// The name that lm-evaluation-harness gives it, such as `arc_easy`.
    pub fn name(self) -> &'static str {
        match self {
            Task::LambadaOpenai => "lambada_openai",
            Task::HellaSwag => "hellaswag",
            Task::Piqa => "piqa",
            Task::WinoGrande => "winogrande",
            Task::ArcEasy => "arc_easy",
            Task::ArcChallenge => "arc_challenge",
            Task::BoolQ => "boolq",
            Task::Rte => "rte",
            Task::OpenBookQa => "openbookqa",
        }
    }

    /// Where its questions are on the Hugging Face hub: the data set's id, and in it
    /// the path of the split that is asked.
    pub fn on_hub(self) -> [&'static str; 2] {
        match self {
            Task::LambadaOpenai => ["EleutherAI/lambada_openai", "data/lambada_test.jsonl"],
            Task::HellaSwag => ["Rowan/hellaswag", "data/validation-00000-of-00001.parquet"],
            Task::Piqa => ["baber/piqa@refs/convert/parquet", "default/validation/0000.parquet"],
            Task::WinoGrande => {
                ["allenai/winogrande", "winogrande_xl/validation-00000-of-00001.parquet"]
            }
            Task::ArcEasy => ["allenai/ai2_arc", "ARC-Easy/test-00000-of-00001.parquet"],
            Task::ArcChallenge => ["allenai/ai2_arc", "ARC-Challenge/test-00000-of-00001.parquet"],
            Task::BoolQ => ["aps/super_glue", "boolq/validation-00000-of-00001.parquet"],
            Task::Rte => ["nyu-mll/glue", "rte/validation-00000-of-00001.parquet"],
            Task::OpenBookQa => ["allenai/openbookqa", "main/test-00000-of-00001.parquet"],
        }
    }

    /// Whether `acc_norm` is one of its metrics: accuracy where each choice's
    /// log-likelihood is divided by its length in characters.
    pub(super) fn has_acc_norm(self) -> bool {
        use Task::*;
        matches!(self, HellaSwag | Piqa | ArcEasy | ArcChallenge | OpenBookQa)
    }
}

impl std::str::FromStr for Task {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Task::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            format!("unknown task {name}; known are {}", Task::ALL.map(Task::name).join(", "))
        })
    }
}
