//! Random histories, held against the model.

use crate::random;
use crate::subject::Subject;

/// Every command, stale tokens, clocks that step; to the last byte of the answer.
pub async fn one_command_after_the_other_answers_as_the_model_does(subject: &mut dyn Subject) {
    random::sequential(subject, 0x5e_0e1, random::commands()).await;
}

/// The same commands from eight sides.
pub async fn many_workers_at_once_make_one_chain_of_legal_steps(subject: &mut dyn Subject) {
    random::concurrent(subject, 0xc0_ffee, random::commands()).await;
}
