//! What every backend must do, as tests. A backend plugs in with a function that makes an empty store:
//!
//! ```ignore
//! use sotto_storage::conformance::Fresh;
//!
//! async fn fresh() -> Fresh {
//!     let folder = tempfile::tempdir().expect("temporary folder");
//!     let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
//!     Fresh { store: Arc::new(store), keep: Box::new(folder) }
//! }
//!
//! sotto_storage::conformance_tests!(fresh);
//! ```
//!
//! The macro writes one `#[tokio::test]` for each case, in a module for each trait. The messages in them
//! are sealed for real, with keys that the backend itself keeps.

pub mod audit;
pub mod directory;
pub mod fixture;
pub mod key_store;
pub mod message_log;
pub mod outbox;
pub mod publications;
pub mod push_registry;
pub mod retained;
pub mod retention;
pub mod session_store;
pub mod wakeups;
pub mod whole_store;
pub mod wills;

pub use fixture::{Fixture, Fresh};

/// Expands to the whole suite. `$fresh` names an `async fn() -> Fresh` beside the call.
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:ident) => {
        $crate::conformance_group!($fresh, message_log,
            an_empty_store_answers
            offsets_start_at_one_and_rise_in_the_order_of_the_batch
            each_tenant_counts_for_itself
            a_batch_repeated_under_its_number_is_committed_once
            a_batch_number_is_not_given_to_another_batch
            claiming_again_returns_the_last_batch_number
            a_message_comes_back_as_it_was_appended
            a_page_is_cut_after_its_records
            a_page_is_cut_before_its_bytes_are_exceeded
            pages_join_without_gap_or_repetition
            a_selector_holds_after_its_own_offset
            a_message_is_returned_once_however_many_selectors_match_it
            wildcards_select_what_filters_match
            a_wildcard_wider_than_any_bound_is_read_to_the_end
            a_page_ends_at_its_bounds
            one_tenant_never_sees_another_s_messages
            what_is_at_or_before_the_head_is_seen_whole
            messages_are_got_by_offset
            an_exactly_once_packet_id_is_committed_with_its_message
            an_exactly_once_packet_id_of_a_session_that_is_gone_is_no_error
        );
        $crate::conformance_group!($fresh, publications,
            what_is_published_again_is_not_stored_again
            what_is_twice_in_one_batch_is_stored_once
            a_repeated_batch_tells_what_it_stored_from_what_had_been
            a_name_is_its_sender_s_own
            what_is_published_again_changes_nothing_retained
            the_packet_id_of_what_is_published_again_is_remembered
            names_are_forgotten_in_bounded_steps
            a_full_batch_leaves_out_what_is_known
        );
        $crate::conformance_group!($fresh, retained,
            the_last_retained_message_of_a_topic_stands
            the_topics_that_have_one_are_told_unless_they_are_too_many
            a_clearing_message_leaves_nothing_retained
            changes_within_a_batch_are_made_in_its_order
            an_expired_retained_message_is_not_returned
            retained_messages_are_selected_by_filter_and_ordered_by_topic
            retained_messages_are_read_by_pages
            a_page_of_retained_messages_is_cut_before_its_bytes_are_exceeded
            few_retained_matches_among_many_topics_are_found_in_bounded_steps
            expired_retained_messages_are_removed_in_bounded_steps
        );
        $crate::conformance_group!($fresh, retention,
            nothing_goes_unless_it_is_said
            what_is_older_than_its_days_goes_and_the_log_begins_after_it
            a_log_of_which_nothing_is_left_begins_after_its_head
            a_tenant_s_own_days_are_its_own
            nothing_younger_than_the_minimum_goes
            a_legal_hold_keeps_everything_until_it_is_lifted
            what_is_too_much_goes_from_the_beginning
            a_step_deletes_no_more_than_its_limit
            pages_join_across_what_has_gone
            a_reader_is_not_disturbed
            a_clock_that_jumps_weeks_loses_nothing_early
            a_retained_message_outlives_its_place_in_the_log
            what_waits_in_the_outbox_for_a_message_that_has_gone_goes_too
            a_change_raises_the_revision_and_writes_one_audit_row
        );
        $crate::conformance_group!($fresh, session_store,
            a_new_session_begins_at_the_head_given
            a_session_is_taken_up_as_it_was_left
            a_takeover_fences_every_operation_of_the_older_generation
            operations_of_a_deleted_session_are_fenced
            clean_start_forgets_what_was_stored
            a_client_id_names_a_session_within_its_tenant
            another_user_s_session_is_not_taken_up
            a_subscription_is_replaced_by_filter_as_subscribed
            operations_of_one_call_are_applied_in_their_order
            saving_replaces_what_was_in_flight
            a_released_packet_id_is_free_again
            a_packet_id_stored_with_its_message_outlives_what_is_saved_without_it
            what_is_saved_and_released_in_one_call_stands_in_its_order
            closing_with_an_expiry_of_zero_deletes_the_session
            an_expired_session_is_not_taken_up
            sessions_expire_when_their_time_has_come
            sessions_are_listed_by_id_with_their_subscriptions
            sessions_of_a_dead_process_are_disconnected
            recovered_sessions_that_are_behind_are_woken
        );
        $crate::conformance_group!($fresh, wills,
            a_will_is_due_after_its_delay_and_comes_back_as_it_was_kept
            a_will_is_due_no_later_than_its_session_ends
            a_will_that_is_withdrawn_or_published_is_never_due
            a_session_taken_up_in_time_withdraws_its_delayed_will
            a_takeover_publishes_a_will_without_delay_and_no_other
            a_session_that_is_discarded_ends_and_its_will_is_due
            changes_of_one_call_leave_the_last_will
            wills_of_sessions_left_connected_are_due_after_a_start
            a_user_s_wills_go_with_the_user
            due_wills_are_returned_longest_due_first_up_to_the_limit
        );
        $crate::conformance_group!($fresh, outbox,
            many_messages_make_one_wakeup_due
            the_sender_is_not_woken
            a_connected_device_is_not_woken
            a_session_that_is_up_to_date_is_not_woken
            a_member_since_later_is_not_woken
            a_device_without_registration_or_session_is_not_woken
            an_expired_session_is_not_woken
            a_message_to_an_inbox_wakes_its_user
            a_message_that_wakes_nobody_leaves_no_outbox_row
            a_message_that_has_expired_wakes_nobody
            a_message_outside_conversations_wakes_nobody
            the_relay_takes_no_more_rows_than_its_limit
            closing_behind_makes_a_wakeup_due
            closing_up_to_date_makes_none_due
            closing_with_something_in_flight_makes_a_wakeup_due
            one_s_own_messages_do_not_count_as_behind
            messages_from_before_the_membership_do_not_count_as_behind
            nothing_more_is_sent_until_the_device_has_been_back
            a_claim_holds_until_its_lease_ends
            a_claim_takes_no_more_than_its_limit
            a_settlement_under_an_older_lease_changes_nothing
            a_device_that_returns_is_no_longer_due
            a_returned_device_is_not_claimed
            a_deleted_session_s_wakeup_is_not_claimed
            a_retry_waits_for_its_time_and_is_counted
            an_invalid_token_takes_its_registration_along
            a_token_registered_anew_survives_the_refusal_of_the_old_one
            a_wakeup_given_up_is_kept_as_a_dead_letter
            old_dead_letters_are_purged
            the_lag_counts_what_waits
        );
        $crate::conformance_group!($fresh, wakeups,
            a_wakeup_is_as_urgent_as_the_most_urgent_message
            a_muted_conversation_wakes_without_urgency
            closing_behind_is_as_urgent_as_what_is_behind
            an_urgent_message_makes_a_less_urgent_wakeup_due_at_once
            a_message_that_is_no_more_urgent_leaves_the_wakeup_as_it_is
            a_wakeup_that_the_push_service_has_given_up_is_due_again
            wakeups_are_claimed_by_lane
            putting_a_wakeup_off_is_no_attempt
            the_last_push_without_urgency_is_remembered_with_its_token
            a_verdict_older_than_the_registration_spares_it
            many_wakeups_are_settled_together
            what_is_over_the_quota_waits_and_is_not_lost
            one_tenant_s_quota_is_not_another_s
            an_urgent_wakeup_does_not_wait_behind_others
            closing_sessions_are_within_the_quota
            dead_letters_are_replayed_for_whom_still_sleeps
            the_lag_is_told_by_lane
        );
        $crate::conformance_group!($fresh, directory,
            every_change_raises_the_revision_and_writes_one_audit_row
            a_refused_change_leaves_no_trace
            a_snapshot_holds_all_that_was_made
            names_are_unique_within_their_tenant
            a_tenant_s_things_are_missing_in_another
            a_device_is_made_once
            a_user_has_a_bounded_number_of_devices
            a_membership_holds_since_the_head
            a_member_mutes_a_conversation
            all_that_a_user_had_goes_with_the_user
            all_that_a_device_had_goes_with_the_device
            memberships_go_with_their_conversation
            access_rules_stand_in_their_order
            an_access_rule_is_a_tenant_s_own
            a_tenant_has_a_bounded_number_of_access_rules
        );
        $crate::conformance_group!($fresh, push_registry,
            a_registration_replaces_the_one_before
            a_device_must_exist_to_be_registered
            another_token_moves_the_outstanding_wakeup
            the_same_token_again_disturbs_nothing
            a_token_is_one_device_s
            unregistering_takes_the_outstanding_wakeup_along
            unregistering_twice_is_no_error
            the_audit_says_whose_device_asked
        );
        $crate::conformance_group!($fresh, audit,
            every_event_comes_back_newest_first
            events_are_read_by_tenant_up_to_the_limit
        );
        $crate::conformance_group!($fresh, key_store,
            the_first_epoch_key_stands
            the_first_data_key_stands
            the_highest_epoch_is_current
            an_epoch_key_is_rewrapped_only_from_what_it_was
            racing_writers_agree
        );
    };
}

/// The tests of one trait.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_group {
    ($fresh:ident, $group:ident, $($case:ident)+) => {
        mod $group {
            use $crate::conformance::{Fixture, $group};

            $(
                #[tokio::test]
                async fn $case() {
                    $group::$case(Fixture::new(super::$fresh().await).await).await;
                }
            )+
        }
    };
}
