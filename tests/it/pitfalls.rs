//! Mistakes that other lock systems shipped, and the tests that hold that they are not made here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A mistake by the public issues that tell of it, what it was, and the tests of it here.
type Pitfall = (&'static str, &'static str, &'static [&'static str]);

/// Leaders, leases, clients.
#[rustfmt::skip]
const LEASES: [Pitfall; 49] = [
    ("etcd#10811, redisson#2665, curator#727", "the holder pauses past its lease and goes on",
        &["a_stopped_holder_knows_at_its_first_look_that_it_lost_the_lock",
          "a_client_that_slept_past_the_deadline_expires_then_reads",
          "a_holder_that_lost_its_lock_without_looking_is_refused_by_what_it_writes_to"]),
    ("etcd#11456", "a waiter is granted on a lease that is over",
        &["a_waiter_of_an_expired_session_is_not_granted",
          "a_free_lock_is_not_granted_on_a_deadline_that_has_just_passed"]),
    ("juju#6940, filelock PR#136", "the wall clock jumps",
        &["nothing_is_timed_by_the_wall_clock"]),
    ("client-go leaderelection, Consul's documentation", "clocks run at different rates",
        &["planted_mistakes_are_found"]),
    ("delta-rs#153, node-redlock#167", "the deadline counts from the answer",
        &["the_deadline_counts_from_sending_not_from_the_answer"]),
    ("redlock-rb#36, RedLock.net#48, redsync#147", "renewing an expired lease revives it",
        &["an_expired_session_is_over_once_its_end_is_handed_to_the_disk",
          "what_is_lost_stays_lost_when_the_leader_is_back"]),
    ("redisson#7272, #4368, lockgate#10", "a renewal races a release and renews for ever",
        &["seeds"]), // in the end nothing is held without a holder
    ("redisson#5698, #3194, #1604", "renewal stops silently",
        &["an_unanswered_renewal_does_not_stop_the_next",
          "renewals_that_fail_are_warned_of_before_the_deadline_and_once"]),
    ("etcd#22082, live-mutex#131", "a stale release frees the new owner",
        &["a_stale_release_is_answered_and_frees_no_other_lock"]),
    ("curator#1193, consul#4902", "the outcome of a release is unknown",
        &["an_unanswered_release_is_said_again_and_over_once_it_is_answered",
          "a_release_that_was_not_answered_is_no_claim_and_says_how_the_lock_was_left"]),
    ("go-zookeeper#237, accumulo#1086, databend#18576", "a retry waits behind its first attempt",
        &["a_repeated_request_waits_once"]),
    ("atlasdb#4933, zk-ruby#49", "a grant goes to a client that gave up",
        &["a_cancelled_waiter_is_not_granted",
          "a_grant_that_crossed_its_cancel_is_handed_back_untold"]),
    ("matrixone#25790", "taken although already cancelled",
        &["one_that_gave_up_before_it_was_connected_is_never_asked_for",
          "drops_race_with_hand_overs"]),
    ("rustfs#2795, redisson's changelog", "a dropped waiter leaves something behind",
        &["a_wait_dropped_after_any_number_of_polls_leaves_nothing",
          "a_task_dropped_at_any_stage_leaves_nothing_behind"]),
    ("ncps#913, blnk#355", "cancelling the task cancels the release",
        &["an_unlock_cannot_be_cancelled"]),
    ("redisson#1763, #491, python-redis-lock#58", "a wake-up is lost",
        &["sixty_four_threads_all_get_their_turn", "planted_mistakes_are_found"]),
    ("redisson#3004, #6150", "a live waiter is thrown out, a dead one blocks the queue",
        &["a_waiter_with_a_lost_connection_keeps_its_place_and_is_passed_over",
          "a_waiter_killed_in_the_queue_blocks_no_other"]),
    ("python-redis-lock#58, #104", "newcomers overtake at hand-over",
        &["the_queue_is_first_come_first_served_across_sessions",
          "sessions_are_served_first_come_first_served"]),
    ("hazelcast-nodejs-client#898", "first use from two threads opens two sessions",
        &["a_first_use_from_many_threads_at_once_opens_one_session"]),
    ("curator#1121", "an old session's leftover is taken for one's own",
        &["a_session_belongs_to_its_proof_alone",
          "a_session_cannot_be_taken_over_without_its_proof"]),
    ("etcd#12528, #15247", "a deposed leader goes on acting",
        &["a_leader_that_meets_a_later_history_pauses_its_grants_and_goes_on_sixteen_epochs_above",
          "a_leader_with_old_state_is_refused_in_words"]),
    ("Chubby's rule", "a new leader shortens leases",
        &["a_session_that_does_not_come_back_delays_new_grants_by_its_time_to_live_at_most"]),
    ("redisson#4706, #5256", "a new leader knows nothing of old grants",
        &["with_all_sessions_back_holders_hold_waiters_keep_their_order_and_grants_go_on_at_once",
          "a_holder_keeps_its_lock_and_waiters_their_order_while_their_leader_is_killed_and_restarted"]),
    ("live-mutex, etcd#17780", "tokens go back after a restart or a restore",
        &["tokens_grow_across_restarts_of_the_leader",
          "a_state_directory_restored_from_yesterday_is_found_out_and_says_how_it_goes_on",
          "a_restored_state_directory_is_detected_though_it_has_come_to_the_lost_epoch_or_past_it",
          "a_restored_state_directory_is_detected_by_a_table_without_users",
          "a_leader_restored_from_before_its_last_start_is_told_by_clients_of_the_lost_reign",
          "a_restored_leader_is_told_however_often_it_was_started_since"]),
    ("redisson#6510", "one token key per name for ever, or it resets",
        &["a_forgotten_name_costs_nothing_and_its_tokens_do_not_go_back",
          "many_names_that_are_forgotten_keep_their_tokens"]),
    ("gajae-code#4704", "two leaders on one state directory",
        &["a_second_leader_on_one_state_directory_is_refused_and_told_of_the_first"]),
    ("etcd#15247", "a stalled leader believes that its clients died",
        &["a_late_leader_expires_no_session_before_it_has_read_what_came",
          "a_stopped_leader_is_not_a_dead_one"]),
    ("etcd#9496, redisson#4216", "all clients reconnect at once",
        &["a_manager_that_wants_something_tries_for_ever_and_not_in_step_with_others"]),
    ("consul#7523", "a release wakes the whole herd",
        &["a_release_wakes_exactly_one"]),
    ("runlore#250, curator#1024", "a candidate stops after losing once",
        &["a_manager_that_wants_something_tries_for_ever_and_not_in_step_with_others",
          "a_waiter_survives_an_outage_and_gets_the_lock"]),
    ("curator#1137, #1169, #980", "events of old connections interleave",
        &["frames_of_an_older_connection_are_not_read", "an_older_connection_counts_no_more"]),
    ("live-mutex#131", "break removes the wrong holder",
        &["a_break_with_another_token_breaks_nothing_and_names_the_holder",
          "a_lock_is_taken_away_from_exactly_the_holder_of_a_token"]),
    ("dynamodb-lock-client#6", "the backend being down looks like a lost lock",
        &["an_unacknowledged_acquire_is_unreachable_and_not_lost",
          "a_leader_that_is_gone_is_unreachable_and_not_a_loss"]),
    ("consul#2022, #873, #9788", "the command runs on after the lock is lost",
        &["a_stubborn_command_is_dead_when_its_time_is_up",
          "a_stopped_tierlock_loses_its_command_before_its_lock"]),
    ("portalocker#144", "safety in a debug-only assertion",
        &["a_release_too_many_is_refused"]),
    ("hazelcast#1055, terraform#30650, cargo#15094", "the holder of a lock cannot be seen",
        &["a_wait_that_ends_names_the_holder", "a_wait_in_vain_names_the_holder"]),
    ("atlasdb#3162, rslock#30", "a process that exits takes its releases with it",
        &["what_was_released_before_an_exit_is_free_and_clean"]),
    ("tokio's cooperation", "a task that loops over free locks starves timers",
        &["a_task_that_finds_its_lock_free_again_and_again_lets_timers_fire"]),
    ("found by remotes", "a short wait says that no leader is there",
        &["a_wait_of_any_length_gets_a_free_lock", "a_wait_of_any_length_ends_behind_a_holder"]),
    ("named-lock's tests", "a probe takes away the mark that the holder before died",
        &["a_probe_after_a_kill_takes_no_mark_away",
          "a_lock_handed_on_tells_the_next_holder_what_was_told"]),
    ("ceph#14267", "a new leader takes renewal times from the journal and evicts the living",
        &["a_reign_killed_under_load_is_followed_and_no_update_is_lost"]),
    ("ceph#25536", "the reclaim window ends while the leader itself is busy",
        &["a_leader_that_is_late_in_its_grace_gives_absent_sessions_their_time"]),
    ("ceph#21769", "reports that come early are dropped in a later phase",
        &["nothing_is_said_before_the_reign_is_durable_and_nothing_granted_before_the_session_is"]),
    ("ceph#31662, #24286", "after a reconnect the two sides disagree, a recall is never answered",
        &["a_recall_is_said_again_on_the_next_connection_also_of_a_grant_that_was_not_heard",
          "a_recall_that_was_lost_is_told_again_on_the_next_connection"]),
    ("ceph#13522", "a session that was reset stays stale for ever",
        &["an_unknown_session_is_gone_and_waits_on_as_another_at_its_place"]),
    ("nfs-ganesha#1237, #834, #756, #1143", "locks are lost, or stay for ever, when a leader moves to and fro",
        &["a_reign_moves_to_and_fro_by_a_signal",
          "a_journal_is_moved_to_a_store_and_back_and_held_locks_stay_held"]),
    ("chimera#1075", "a reclaim is accepted outside grace, a new grant made inside it",
        &["a_client_that_died_with_the_leader_holds_up_its_own_names_only",
          "a_lease_of_an_earlier_reign_is_not_confirmed_after_the_first_report",
          "a_lease_that_its_session_never_asked_for_is_not_confirmed_and_sounds_an_alarm"]),
    ("cockroachdb/docs#19755", "the log has one leader and the lease another",
        &["a_journal_that_is_renewed_and_cannot_be_written_grants_nothing_new"]),
    ("etcd#15247", "an old leader of the store answers its keep-alives",
        &["no_lease_of_the_store_is_proof"]),
];

/// Processes of one machine.
#[rustfmt::skip]
const PROCESSES: [Pitfall; 25] = [
    ("filelock#574, jj#8729, uutils#18", "deleting the lock file lets two in",
        &["a_deleted_lock_file_is_made_again_with_what_it_said",
          "a_gate_with_a_removed_or_replaced_file_lets_no_caller_in",
          "a_table_removed_or_replaced_under_us_is_told_before_any_death_is_acted_upon"]),
    ("stellar-core#652, Chromium's SingletonLock", "stale pid files, reused pids",
        &["ids_are_never_used_again", "a_process_id_decides_nothing"]),
    ("fasteners#93, rocksdb#1780, iceoryx2#274", "thread and process meaning mixed up",
        &["a_narrow_and_a_wide_mutex_of_one_name_exclude_each_other"]),
    ("filelock#485", "a second instance in one process blocks itself or gets in",
        &["two_managers_in_one_process_exclude_each_other"]),
    ("materialize#12050, aws-c-common#1192", "a forked child releases its parent's lock",
        &["a_forked_child_touches_nothing_of_its_parents"]),
    ("uv#15996", "EINTR becomes a failed lock",
        &["a_wait_goes_on_after_a_signal", "a_wait_on_the_table_goes_on_after_a_signal",
          "a_storm_of_signals_fails_no_lock"]),
    ("cargo#4629, filelock#67, mamba#1446", "network file systems",
        &["network_file_systems_are_refused_by_name",
          "an_unknown_file_system_is_refused_unless_asked_for"]),
    ("cargo#2623", "a silently weaker lock",
        &["unknown_file_systems_are_refused_by_number",
          "a_presence_that_cannot_be_opened_counts_as_alive_and_is_told"]),
    ("cocoon#114", "a limit is kept by coarse looks",
        &["a_wait_with_a_limit_ends_soon_after_it"]),
    ("xapi sm#683", "starvation",
        &["a_due_waiter_is_handed_the_lock_which_is_never_free",
          "a_process_that_locks_again_at_once_leaves_another_its_turn"]),
    ("boost interprocess#56, #65, raw_sync PR#17", "a crash leaves the shared mutex locked",
        &["a_killed_holder_is_succeeded",
          "a_killed_holder_is_told_as_died_and_its_token_is_exceeded"]),
    ("reth#2556", "a robust mutex ends the process in another pid namespace",
        &["a_holder_in_another_pid_namespace_is_held_alive_and_found_dead"]),
    ("dpibreak#16, CVE-2025-68146", "cleaners, symlinks and other users' files",
        &["links_in_place_of_lock_files_are_not_followed",
          "links_in_place_of_the_tables_files_are_not_followed",
          "a_presence_deleted_under_its_holder_is_damage_until_it_is_made_again"]),
    ("mongo-c-driver#1244", "SIGBUS on a sparse mapping when the disk is full",
        &["a_full_disk_is_an_error_before_the_first_lock",
          "a_sparse_lock_file_on_a_full_disk_is_an_error",
          "a_full_disk_is_an_error_at_build_and_costs_no_holder_its_lock"]),
    ("seen here", "since Rust 1.89 `file.lock()` is another method",
        &["no_file_is_locked_by_a_method_of_std"]),
    ("fs4#17", "an async lock blocks the executor",
        &["a_polled_wait_leaves_its_thread_to_other_tasks"]),
    ("hermes-agent#100108, skhd#83", "the lock lives on in a forked child",
        &["a_forked_child_does_not_keep_its_dead_parents_lock"]),
    ("seen here", "a stopped prober makes the dead immortal",
        &["a_prober_stopped_in_its_probe_does_not_keep_the_dead_alive",
          "surveys_disturb_no_lock"]),
    ("seen here", "hand-over to a waiter that is stopped",
        &["a_silent_wait_is_passed_over_and_its_record_says_so",
          "a_waiter_that_is_stopped_holds_up_no_other"]),
    ("LXC, systemd-nspawn", "the boot id differs per container",
        &["another_boot_id_counts_only_when_no_process_is_alive"]),
    ("seen here", "an allocation returns without allocating",
        &["space_is_really_there_for_every_part", "space_is_really_there_for_every_lock_file"]),
    ("seen here", "a forgotten name's slot is used under a stale index",
        &["a_slot_used_again_is_not_taken_for_the_name_it_had"]),
    ("buildbot#479, cqlite#3924", "the order of waiting processes is chance",
        &["eight_processes_are_shown_in_order_and_served_in_order",
          "eight_waiters_are_served_in_the_order_in_which_they_came"]),
    ("ShedLock PR#7", "the minimum hold is lost with its holder",
        &["a_hold_with_at_least_outlives_its_process"]),
    ("tokio#6450", "a wait that is not polled keeps out all others",
        &["a_future_that_is_not_polled_again_keeps_none_out"]),
];

/// Readers and writers.
#[rustfmt::skip]
const SHARED: [Pitfall; 23] = [
    ("apcu#632", "a reader killed in shared memory blocks every writer for ever",
        &["a_killed_reader_blocks_no_writer"]),
    ("parking_lot#101", "a second upgradable reader that waits shuts out plain readers",
        &["readers_come_in_beside_an_upgradable_reader_while_another_waits",
          "an_upgradable_reader_that_waits_holds_up_those_that_ask_behind_it_and_no_others"]),
    ("shuttle#351", "an upgrade lets a queued writer in between",
        &["no_writer_comes_between_reading_and_upgrading"]),
    ("curator#1138, #796", "a downgrade lets a queued writer in beside the new reader",
        &["no_writer_comes_between_reading_and_upgrading"]),
    ("redisson#3891", "a waiting writer misses the unlock and sleeps out its time",
        &["every_planted_mistake_of_sharing_is_found"]),
    ("redisson#4023", "an exclusive lock and a read lock of one name are both held",
        &["a_mutex_of_the_name_is_a_writer"]),
    ("futures-locks#34, dart-mutex#11", "readers without a pause starve writers",
        &["a_waiting_writer_holds_new_readers_up_and_comes_next"]),
    ("llvm#201937", "a writer that times out eats the wake of a reader",
        &["a_wait_in_vain_leaves_no_trace"]),
    ("tokio#6450", "a writer that is not polled keeps out all others",
        &["a_leaked_taker_in_front_holds_up_none",
          "a_task_whose_turn_has_lapsed_asks_anew_for_a_lease_of_its_own",
          "a_leaked_writer_holds_up_no_other",
          "a_writer_whose_turn_has_lapsed_comes_in_once_it_is_polled"]),
    ("redisson#1542", "readers that queued behind a writer enter one at a time",
        &["readers_in_a_row_enter_together_and_stop_at_a_writer"]),
    ("redisson#1604, #1458", "one reader's timeout ends the others'",
        &["a_reader_that_runs_out_while_a_writer_waits_frees_its_own_share_once_that_is_durable"]),
    ("cats-effect#403, redisson#7206, embassy#6964", "a large request that gives up in front wakes none",
        &["a_taker_that_gives_up_in_front_lets_the_next_try",
          "permits_are_counted_and_a_large_request_is_not_passed_by_small_ones"]),
    ("redisson#4462", "permits of a crashed client never come back",
        &["permits_of_a_killed_process_come_back", "permits_of_a_killed_session_come_back",
          "permits_are_counted_and_a_large_request_is_not_passed_by_small_ones"]),
    ("helix#2515", "room is checked in one step and taken in another",
        &["threads_never_hold_more_than_there_are", "every_planted_mistake_of_permits_is_found",
          "permits_are_counted_and_a_large_request_is_not_passed_by_small_ones"]),
    ("tokio#2849, parking_lot#212", "a second read lock of one thread hangs behind a waiting writer",
        &["a_second_read_lock_behind_a_waiting_writer_times_out"]), // and is documented
    ("curator#1211, #1169, Netflix/curator#216", "two leaders after a session was lost and found again",
        &["a_lost_leader_is_told_and_stands_again"]),
    ("etcd#22123", "a failed resign forgets that it leads",
        &["a_resignation_without_an_answer_is_said_again"]),
    ("etcd#18163, trillian#1387", "an observer is told an old leader, or never that there is none",
        &["an_observer_is_told_the_present_leader_first_and_then_each_change",
          "before_the_end_of_grace_an_observer_is_told_nothing"]),
    ("client-go#448", "a candidate waits a whole lease though none leads",
        &["a_free_election_is_won_at_once"]),
    ("kubernetes#114872", "a candidate with a short duration deposes one with a long one",
        &["a_candidate_with_short_terms_deposes_no_leader"]),
    ("pinniped#800", "the lease is given back before the process has stopped leading",
        &["a_leader_that_goes_is_told_first"]),
    ("redisson#4050", "several locks at once deadlock, or are left behind in part",
        &["callers_in_any_order_never_wait_in_a_circle"]),
    ("seen here", "a reader looks at the lock before it is counted",
        &["every_planted_mistake_of_sharing_is_found", "no_kill_shows_a_reader_a_write_half_done"]),
];

#[test]
fn every_pitfall_has_its_tests() {
    let tests = tests_of(&sources());
    let missing: Vec<_> = LEASES
        .iter()
        .chain(&PROCESSES)
        .chain(&SHARED)
        .flat_map(|(issues, what, names)| {
            assert!(!names.is_empty(), "{issues}: {what}");
            names
                .iter()
                .filter(|name| !tests.contains(**name))
                .map(move |name| (issues, what, name))
        })
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn a_test_that_is_not_run_is_not_found() {
    let source = "#[test]\nfn one() {}\nfn two() {}\nat!(everywhere, three);\nfn three() {}\n\
                  #[test]\n#[ignore = \"slow\"]\nfn four() {}\n";
    let found = tests_of(&[(PathBuf::new(), source.to_owned())]);
    assert_eq!(found, ["one", "three"].map(str::to_owned).into());
}

/// juju#6940: what is timed by the wall clock is wrong when that is set.
#[test]
fn nothing_is_timed_by_the_wall_clock() {
    // The age of an abandoned file is compared with what the file system says of it, and the end of a
    // credential is a date. A module's tests, in the folder of its name, go with it.
    let allowed = [
        "src/process/dir/home.rs",
        "src/cli/args/secret.rs",
        "src/cli/secret.rs",
        "src/host/net/credential.rs",
        "src/host/net/issued.rs",
    ];
    let named: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src"))
        .filter(|(_, text)| {
            ["SystemTime", "Realtime", "CLOCK_REALTIME"].iter().any(|c| text.contains(c))
        })
        .map(|(path, _)| path)
        .filter(|path| {
            !allowed
                .iter()
                .map(Path::new)
                .any(|allowed| path == allowed || path.starts_with(allowed.with_extension("")))
        })
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

/// Since Rust 1.89 `file.lock()` is std's method, whatever traits are in scope: the locking crate's
/// is called by its path.
#[test]
fn no_file_is_locked_by_a_method_of_std() {
    let is_about = |path: &Path| {
        path == Path::new("src/host/journal/file/place.rs")
            || path.starts_with("src/process")
                && !path.ends_with("tests.rs")
                && !path.starts_with("src/process/table/model")
    };
    let looked_at: Vec<_> = sources().into_iter().filter(|(path, _)| is_about(path)).collect();
    assert!(looked_at.iter().any(|(_, text)| text.contains("FileExt::try_lock(")));
    let found: Vec<_> = looked_at
        .iter()
        .flat_map(|(path, text)| locked_by_method(text).into_iter().map(move |what| (path, what)))
        // A method of ours, which says the path.
        .filter(|found| *found != (&PathBuf::from("src/process/flock/open.rs"), "open".to_owned()))
        .collect();
    assert!(found.is_empty(), "neither a mutex of the same file nor by its path: {found:?}");
}

#[test]
fn a_file_locked_by_a_method_is_found() {
    let source = "
        struct Shared { state: Mutex<()>, lock: LockFile }
        fn f(shared: &Shared, file: &File, own: &parking_lot::Mutex<()>) {
            FileExt::lock(file).unwrap(); // not file.unlock()
            shared.state.lock();
            own.lock();
            cell.here(Mutex::default).lock();
            file.lock();
            (&file).lock_shared();
            shared
                .lock
                .file()
                .try_lock();
        }
        #[cfg(test)]
        mod tests { fn f() { file.lock(); } }";
    assert_eq!(locked_by_method(source), ["file", "(&file)", "file()"]);
}

/// What is locked by a method and is no mutex, as far as the same file says what it is.
fn locked_by_method(source: &str) -> Vec<String> {
    const METHODS: [&str; 5] =
        [".lock()", ".try_lock()", ".lock_shared()", ".try_lock_shared()", ".unlock()"];
    let code = source.split("#[cfg(test)]\n").next().unwrap_or_default();
    let code = code.lines().filter_map(|line| line.split("//").next());
    let code: String = code.flat_map(str::split_whitespace).collect();
    let is_mutex = |word: &str| {
        let kinds = ["Mutex<", "&Mutex<", "parking_lot::Mutex<", "&parking_lot::Mutex<"];
        word.contains("Mutex::")
            || kinds.iter().any(|kind| code.contains(&format!("{word}:{kind}")))
    };
    let calls = METHODS.iter().flat_map(|method| code.match_indices(method));
    let mut locked: Vec<_> = calls.map(|(at, _)| (at, last_part(&code[..at]))).collect();
    locked.sort();
    locked.into_iter().map(|(_, word)| word.to_owned()).filter(|word| !is_mutex(word)).collect()
}

/// The last field, variable or call of an expression.
fn last_part(code: &str) -> &str {
    let mut depth = 0;
    let begin = code.rfind(|character: char| {
        depth += i32::from(character == ')') - i32::from(character == '(');
        depth < 0 || depth == 0 && !(character.is_alphanumeric() || "_()".contains(character))
    });
    &code[begin.map_or(0, |begin| begin + 1)..]
}

/// The names of what the test harness runs: what stands behind `#[test]`, and situations that are
/// the last word of a macro's call.
fn tests_of(sources: &[(PathBuf, String)]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (_, text) in sources {
        let (mut is_test, mut is_ignored) = (false, false);
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[") || line.is_empty() || line.starts_with("//") {
                is_test |= line.starts_with("#[test]");
                is_ignored |= line.starts_with("#[ignore");
                continue;
            }
            if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                if is_test && !is_ignored {
                    tests.insert(name.to_owned());
                }
            } else if let Some((macro_name, arguments)) = line.split_once("!(")
                && macro_name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && let Some(arguments) = arguments.strip_suffix(");")
            {
                let last = arguments.rsplit([' ', ',']).next().unwrap_or_default();
                tests.insert(last.to_owned());
            }
            (is_test, is_ignored) = (false, false);
        }
    }
    tests
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    sources
}
