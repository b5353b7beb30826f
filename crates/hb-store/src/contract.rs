//! The contract: what every store has to prove. One clause is one test, and its name is the sentence it proves.
//!
//! ```text
//! async fn make_store() -> (MyStore, impl Drop) { … }
//! hb_store::contract!(make_store);
//! ```
//!
//! `make_store` gives a fresh store, and something that is dropped after it (a temporary directory, or `()`).

#![expect(missing_docs, reason = "the names of clauses are their documentation")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "clauses are tests: to panic is how they say no")]

mod access;
mod beats;
mod bounds;
mod due;
mod hosts;
mod outbox;
mod silence;
mod world;

use std::sync::Arc;

pub use access::*;
pub use beats::*;
pub use bounds::*;
pub use due::*;
pub use hosts::*;
pub use outbox::*;
pub use silence::*;

use crate::Store;

/// The store under test.
pub type Subject = Arc<dyn Store>;

/// One named test for each clause of the contract, for the store that `$make().await` gives. The crate that calls it needs
/// `tokio` with its macros.
#[macro_export]
macro_rules! contract {
    ($make:path) => {
        $crate::contract!(@clauses $make:
            an_enrolled_host_is_found_by_its_id_and_its_key_with_its_first_event,
            what_is_not_there_is_none_and_no_error,
            a_name_belongs_to_one_host_that_is_not_retired,
            a_known_key_gets_the_host_it_has_and_takes_nothing,
            a_token_enrols_as_often_as_it_says,
            a_token_that_is_spent_expired_revoked_or_unknown_enrols_nobody,
            of_a_hundred_that_redeem_a_single_use_token_at_once_one_is_enrolled,
            a_refused_enrolment_takes_no_use_off_the_token,
            every_write_of_a_host_changes_its_revision,
            a_commit_from_what_is_no_longer_true_conflicts,
            a_commit_that_conflicts_writes_nothing,
            a_commit_of_an_unknown_host_conflicts,
            an_event_is_stored_once_and_never_changes,
            of_64_commits_of_one_decision_one_is_done,
            an_incident_is_created_once_and_replaced_by_revision,
            everything_that_a_host_has_is_read_back,
            numbers_beyond_every_limit_are_kept_or_capped,
            hosts_are_listed_by_name_and_filtered,
            lists_of_hosts_go_on_after_the_last_one_seen,
            a_beat_in_time_is_stored_without_a_decision,
            a_beat_that_fails_one_condition_is_handed_back_and_writes_nothing,
            a_beat_of_an_unknown_host_is_unknown,
            of_64_beats_that_spend_one_nonce_one_is_stored,
            a_beat_that_lands_before_the_commit_wins,
            beats_follow_each_other,
            the_fast_path_decides_what_the_state_machine_decides,
            due_finds_every_alarm_and_nothing_else,
            due_is_answered_in_pages_earliest_first,
            a_host_that_was_heard_is_not_due_until_it_is_silent_again,
            an_edit_that_brings_the_alarm_forward_is_found_at_once,
            next_due_is_none_when_nothing_is_armed_and_never_late,
            silence_is_counted_for_the_fleet_and_for_each_tag,
            silent_hosts_are_named_in_order,
            the_hosts_of_an_incident_are_those_whose_outage_is_open,
            the_fleet_is_counted_by_state,
            groups_agree_with_their_definition_for_any_fleet,
            events_wait_to_be_told_in_the_order_of_storing,
            telling_twice_changes_nothing,
            deliveries_about_one_host_arrive_in_order_on_each_channel,
            deliveries_without_a_host_keep_order_by_incident,
            a_lease_keeps_others_away_until_it_expires,
            who_lost_the_lease_settles_nothing,
            of_many_claims_at_once_each_delivery_goes_to_one,
            a_failed_delivery_waits_and_so_do_those_behind_it,
            settling_is_noted_on_the_channel,
            a_dead_delivery_can_be_revived_and_a_leased_one_cannot,
            deliveries_are_found_by_id_incident_and_status,
            the_backlog_counts_what_waits_fails_and_is_dead,
            what_was_given_up_counts_while_its_channel_is_there_and_a_test_never,
            next_claim_says_when_there_is_work,
            removing_a_channel_removes_what_waits_for_it,
            events_are_listed_in_both_directions_by_host_and_time,
            history_is_bounded_but_keeps_what_is_still_to_be_told,
            finished_deliveries_are_bounded_and_pending_ones_stay,
            no_list_is_longer_than_its_page,
            keys_are_added_once_used_and_revoked,
            tokens_are_added_once_and_forgotten_after_their_end,
            channels_have_names_of_their_own,
            names_notes_and_settings_keep_every_character,
            the_observation_is_replaced_only_by_who_read_it,
        );
    };
    (@clauses $make:path: $($clause:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $clause() {
            let (store, guard) = $make().await;
            $crate::contract::$clause(std::sync::Arc::new(store)).await;
            drop(guard);
        })*
    };
}
