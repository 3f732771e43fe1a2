//! The tasks, with their names and their places on the hub.

use serde::Serialize;

/// A zero-shot task of lm-evaluation-harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Task {
    /// LAMBADA asks for the last word of a passage (Paperno et al., 2016, in the version of
    /// OpenAI).
    LambadaOpenai,
    /// HellaSwag asks how a scene goes on (Zellers et al., 2019).
    HellaSwag,
    /// PIQA asks how something is done (Bisk et al., 2020).
    Piqa,
    /// WinoGrande asks whom a pronoun means (Sakaguchi et al., 2020).
    WinoGrande,
    /// The easy part of ARC asks questions of school science (Clark et al., 2018).
    ArcEasy,
    /// The hard part of ARC asks the questions that simple methods get wrong.
    ArcChallenge,
    /// BoolQ asks a yes-or-no question about a passage (Clark et al., 2019).
    BoolQ,
    /// RTE asks whether one sentence follows from another (GLUE).
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

    /// The task's name in lm-evaluation-harness, such as `arc_easy`.
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

    /// The place of the task's questions on the Hugging Face hub: the id of the data set, and the
    /// path of the file in it that holds the questions.
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

    /// Whether `acc_norm` is one of the task's metrics. It is the accuracy after the log-likelihood
    /// of each choice is divided by the length of the choice in characters.
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
