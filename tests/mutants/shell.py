"""Mistakes in validator/steps and in the order that drives them, each with the test that notices it.

Gone through line by line: for each condition and each order of effects, who notices if this is wrong?
"""

from __future__ import annotations

from tests.mutants.planting import Mutant

_STEPS = "tests/integration/steps"
_SHELL = f"{_STEPS}/test_shell.py"
_DAMAGE = f"{_STEPS}/test_damage.py"
_REORGANISATION = f"{_STEPS}/test_chain_watch.py"
_ELIGIBILITY = f"{_STEPS}/test_eligibility.py"
_RETENTION = f"{_STEPS}/test_retention.py"
_BAD_INPUT = f"{_STEPS}/test_bad_input.py"
_LATE_PUSH = f"{_STEPS}/test_late_push.py"
_DUE = "tests/unit/steps/test_dispatch.py"
_SCOPE = "tests/unit/steps/test_scope.py"
_ASKING = "tests/unit/steps/test_asking.py"

_SAVED = f"{_SHELL}::test_nothing_is_said_or_paid_for_before_it_is_saved"
_GENUINE = f"{_SHELL}::test_of_what_a_peer_answers_only_genuine_words_on_the_very_instance_are_taken"
_QUORUM = f"{_SHELL}::test_a_quorum_that_a_peer_answers_is_verified"
_ANNOUNCED = f"{_SHELL}::test_an_announcement_is_kept_only_if_all_of_it_is_a_members_and_this_bundles"
_CUT_OFF = f"{_SHELL}::test_a_window_is_observed_when_clock_and_chain_have_passed_its_end"
_AT_BLOCK = f"{_SHELL}::test_everything_of_a_window_is_read_at_the_block_before_its_start_minus_the_lag"
_KEPT = f"{_SHELL}::test_a_block_and_its_state_are_kept_as_they_were_first_read"
_FINAL = f"{_SHELL}::test_a_report_is_final_when_its_block_is"
_SILENCED = f"{_ELIGIBILITY}::test_what_is_in_the_way_silences_a_member_until_it_is_gone"
_RAISED = f"{_ELIGIBILITY}::test_under_a_config_count_that_was_raised_later_nothing_was_said_before"
_WITHOUT_SET = (
    f"{_DAMAGE}::test_without_its_own_observed_set_a_validator_votes_for_no_fresh_proposal_and_hears_the_decision"
)
_FETCHED = f"{_DAMAGE}::test_an_observed_set_that_was_damaged_before_the_decision_is_obtained_from_who_fetched_it"
_STRANGER = (
    f"{_STEPS}/test_settling_lies.py::test_an_attestation_of_a_stranger_or_for_a_bundle_that_is_not_there_is_not_kept"
)
_LEFT_OUT = (
    f"{_STEPS}/test_lies.py::test_a_set_that_does_not_come_is_left_out_and_what_it_held_enters_through_the_late_set"
)
_NO_BROKER = (
    f"{_STEPS}/test_agreement.py::"
    "test_a_window_that_no_broker_answers_is_agreed_as_incomplete_and_its_messages_come_late"
)
_OBSERVER = f"{_SHELL}::test_an_observation_counts_for_nobody_but_its_observer"
_STATEMENT = f"{_BAD_INPUT}::test_a_bad_statement_is_counted_by_its_name_and_moves_nothing"
_LATE_BOUNDS = f"{_LATE_PUSH}::test_what_the_network_does_not_store_is_not_kept_and_its_neighbour_is"
_FORGED = f"{_SHELL}::test_a_certificate_that_a_peer_gives_is_a_quorum_of_precommits_for_its_outcome"
_ALONE = f"{_DAMAGE}::test_one_validator_alone_collects_again_what_was_agreed_though_brokers_have_more_by_now"
_OPENED = f"{_DUE}::test_a_window_is_opened_when_it_begins_and_is_due_at_its_cut_off"
_NAMED = f"{_REORGANISATION}::test_what_was_agreed_by_a_block_that_is_gone_stays_and_is_named"
_BOUNDED = f"{_REORGANISATION}::test_a_look_costs_a_bounded_number_of_blocks_and_reaches_all_in_turn"


def _steps(module: str, *rows: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(f"validator.steps.{module}", *row) for row in rows]


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "validator.protocol.consensus.driver",
        "    shell.persist(ready)\n    shell.send(ready)\n",
        "    shell.send(ready)\n    shell.persist(ready)\n",
        "a vote is saved before it is said",
        _SAVED,
    ),
    *_steps(
        "advance",
        ("            said=ready.said,\n", "            said=(),\n", "own votes are journaled", _SAVED),
        (
            "            events.append(Resume())\n",
            "            pass\n",
            "a new process first asks for its own words",
            f"{_SHELL}::test_a_new_process_resumes_each_instance_once_and_again_when_it_may_vote_again",
        ),
        (
            'log.debug("peer.silent", member=member, reason=str(answer))\n',
            'events += [OwnVotesRecovered(member)] if recall else []\n                log.debug("peer.silent")\n',
            "a silent peer is no answer",
            f"{_SHELL}::test_a_new_process_says_nothing_until_its_peers_have_told_it_its_own_words_or_time_is_up",
        ),
        (
            "own = context.identity.address if may_vote(context, stored.instance) else None",
            "own = context.identity.address",
            "who may not vote says nothing",
            _SILENCED,
        ),
        (
            "    except StaleState:\n",
            "    except ZeroDivisionError:\n",
            "who was overtaken looks again",
            f"{_STEPS}/test_agreement.py::test_a_worker_that_was_overtaken_saves_nothing_and_the_instance_goes_on",
        ),
    ),
    *_steps(
        "proposals",
        (
            " and observation.observer == statement.signer\n",
            "\n",
            "an observation counts for its observer alone",
            _OBSERVER,
        ),
        (
            "fits = observation.instance == self.instance and ",
            "fits = ",
            "an observation counts in its own instance alone",
            _OBSERVER,
        ),
        (
            "worse_variant=worse if round < len(self.rules.committee) else None",
            "worse_variant=worse",
            "variants are not ranked for ever",
            f"{_SHELL}::test_variants_are_ranked_in_the_first_rounds_only",
        ),
        (
            "        if outcome.instance != self.instance:\n",
            "        if False:\n",
            "an outcome is judged in its own instance alone",
            f"{_SHELL}::test_an_outcome_of_another_instance_is_no_answer",
        ),
        (
            "return [may and row.identity not in stored and not behind(row) for may, row in rows]",
            "return [may and not behind(row) for may, row in rows]",
            "what is stored enters no late set",
            f"{_SHELL}::test_what_is_stored_already_enters_no_late_set_though_a_member_observed_it",
        ),
    ),
    *_steps(
        "eligibility",
        (
            " or context.identity.voting_block()",
            "",
            "what is in the way silences",
            _SILENCED,
        ),
        (
            " or not context.identity.may_vote",
            "",
            "an observer says nothing",
            f"{_ELIGIBILITY}::test_an_observer_never_votes",
        ),
        (
            "context.network.config_count > origin.config_count",
            "context.network.config_count >= origin.config_count",
            "only a later config count ends the fresh wait",
            _RAISED,
        ),
        (
            " + epoch.parameters.fresh_wait_windows * epoch.parameters.window_ms",
            "",
            "a fresh database waits",
            f"{_ELIGIBILITY}::test_a_fresh_database_votes_from_the_first_window_after_the_wait_on",
        ),
        (
            "require_bundle(context.store, instance.number).first_ms",
            "require_bundle(context.store, instance.number).end_ms",
            "a late set is as old as its bundle's first window",
            f"{_ELIGIBILITY}::test_the_late_set_of_a_bundle_counts_as_old_as_its_first_window",
        ),
    ),
    *_steps(
        "dispatch",
        (
            "if window.start_ms > now_ms or",
            "if window.start_ms >= now_ms or",
            "a window is opened when it begins",
            _OPENED,
        ),
        (
            "cut_off_ms = window.end_ms + epoch.parameters.grace_ms",
            "cut_off_ms = window.end_ms",
            "the cut-off lies behind the grace",
            _OPENED,
        ),
        (
            "if context.store.windows.load_window(window.start_ms) is None:\n",
            "if False:\n",
            "a window that is opened is due",
            _OPENED,
        ),
        (
            "opened == MAX_WINDOWS",
            "False",
            "a long absence is made up for in turns",
            f"{_DUE}::test_after_a_long_absence_every_window_is_opened_in_turns_and_none_is_left_out",
        ),
        (
            "claim(now_ms, MAX_ROWS, LEASE_MS)",
            "claim(now_ms, MAX_ROWS, LEASE_MS * 9)",
            "a claimed row comes again after its lease",
            f"{_DUE}::test_rows_that_are_due_are_queued_leased_and_come_again_unless_done",
        ),
        ("    schedule_mending(context, now_ms)\n", "", "damage is looked for", _ALONE),
    ),
    *_steps(
        "chain_watch",
        (
            "    compare_blocks(context)\n",
            "",
            "stored cut points are compared with the chain",
            f"{_REORGANISATION}::test_windows_not_yet_observed_are_judged_by_the_block_that_is_there_now[1]",
        ),
        (
            "        differing = _differing(context, context.store.chain.load_cut_points(since_s, oldest_s, IN_TURN))",
            "        differing = []",
            "below a replaced block others are looked for",
            f"{_SHELL}::test_below_a_replaced_block_others_are_looked_for_at_once",
        ),
        (
            "noticed.cut_points_below_s = turn[-1].at_s if len(turn) == IN_TURN else None",
            "noticed.cut_points_below_s = None",
            "older cut points are compared in turn",
            _BOUNDED,
        ),
        (
            "if stored.observation is not None or stored.state != WindowState.OPEN:\n                named",
            "if False:\n                named",
            "instances that were signed by a block that is gone are named",
            _NAMED,
        ),
    ),
    *_steps(
        "pulling",
        ("if context.clock.now_ms() < due_ms:", "if False:", "the own clock has passed the cut-off", _CUT_OFF),
        (" or heads[0].timestamp_s * 1000 < window.end_ms", "", "the chain has passed the window's end", _CUT_OFF),
        (
            "block = context.cut_points.block_for(window.start_ms, parameters)",
            "block = context.cut_points.block_for(window.start_ms - 2_000, parameters)",
            "messages are checked at the window's own block",
            f"{_REORGANISATION}::test_windows_not_yet_observed_are_judged_by_the_block_that_is_there_now[1]",
        ),
    ),
    *_steps(
        "collect",
        (
            "(part for part in parts if part not in answered)",
            "(part for part in parts if part in answered)",
            "what nobody answered is incomplete",
            _NO_BROKER,
        ),
        (
            "        if _freeze(context, window, observation, buffer):\n",
            "        if _freeze(context, window, observation, buffer) or True:\n",
            "etags are kept by who froze the set alone",
            f"{_STEPS}/test_interruption.py::test_what_a_slower_worker_saw_beyond_the_frozen_set_is_pulled_again",
        ),
    ),
    *_steps(
        "cut_points",
        (
            "timestamp_s = ms // 1000 - parameters.lag_s",
            "timestamp_s = ms // 1000 - parameters.lag_s + 1",
            "a cut point lies the lag before its time",
            _AT_BLOCK,
        ),
        ("            self._store.chain.save_block(timestamp_s, block)\n", "", "a cut point is kept", _KEPT),
        ("            self._store.chain.save_state(state)\n", "", "chain state is kept", _KEPT),
    ),
    *_steps(
        "scopes",
        (
            "max(1, parameters.scope_floor * store.partitions)",
            "max(0, parameters.scope_floor * store.partitions)",
            "a stream without a balance is out of scope",
            f"{_SCOPE}::test_a_floor_of_zero_still_asks_for_a_balance",
        ),
    ),
    *_steps(
        "statements",
        (
            "            verify_statement(statement, context.identity.signing)\n",
            "            pass\n",
            "statements that a peer answers are verified",
            _GENUINE,
        ),
        (
            "if (statement.instance, statement.config_digest) != (instance, config.digest):",
            "if statement.instance != instance:",
            "statements that a peer answers are of this config",
            _GENUINE,
        ),
        (
            "            verify_quorum(votes, config.digest, instance, config.committee, context.identity.signing)\n",
            "            pass\n",
            "quorums that a peer answers are verified",
            _QUORUM,
        ),
    ),
    *_steps(
        "asking",
        (
            "owed[member] < MAX_OWED",
            "True",
            "a member that hangs takes few threads",
            f"{_ASKING}::test_a_member_that_hangs_takes_no_more_than_a_few_threads",
        ),
    ),
    *_steps(
        "peer_service",
        (
            "        if statement.signer not in config.committee:\n",
            "        if False:\n",
            "a stranger's statement is refused",
            _STATEMENT,
        ),
        (
            "        if config.digest != digest:\n",
            "        if False:\n",
            "a statement of another config is refused",
            _STATEMENT,
        ),
        (
            "return self._refuse(Item.STATEMENT, statement.signer, Refusal.UNFIT, reason) if reason else True",
            "return True",
            "what its signer may not say is refused",
            _STATEMENT,
        ),
        (
            "                verify_statement(statement, self._context.identity.signing)\n",
            "                pass\n",
            "a statement is verified at the door",
            f"{_BAD_INPUT}::test_a_request_with_one_wrong_signature_is_dropped_whole",
        ),
        (
            "            verify_quorum("
            "votes, config.digest, votes.instance, config.committee, self._context.identity.signing)",
            "            pass",
            "a quorum is verified at the door",
            f"{_BAD_INPUT}::test_a_quorum_that_is_none_moves_nothing",
        ),
        (
            "if stored.config_digest != held.config_digest or",
            "if",
            "votes are told under their config",
            f"{_SHELL}::test_votes_are_told_under_the_config_they_were_cast_for",
        ),
        (
            "        if len(messages) > MAX_LATE_MESSAGES:\n",
            "        if False:\n",
            "pushed messages are bounded",
            f"{_LATE_PUSH}::test_more_than_a_page_at_once_is_refused",
        ),
        (
            "lambda r: from_ms <= r.message.timestamp_ms < now_ms and",
            "lambda r: r.message.timestamp_ms < now_ms and",
            "pushed messages are not too old",
            _LATE_BOUNDS,
        ),
        (
            "lambda r: from_ms <= r.message.timestamp_ms < now_ms and",
            "lambda r: from_ms <= r.message.timestamp_ms and",
            "pushed messages are not of the future",
            _LATE_BOUNDS,
        ),
        (
            "        if attestation.signer not in self._context.cut_points.epoch_config(bundle.epoch).committee:\n",
            "        if False:\n",
            "a stranger's attestation is refused",
            _STRANGER,
        ),
    ),
    *_steps(
        "uploads",
        (
            "    if announcement.config_digest != bundle.config_digest:\n",
            "    if False:\n",
            "an announcement of another config is refused",
            _ANNOUNCED,
        ),
        (
            "        verify_upload(announcement, context.identity.signing)\n",
            "        pass\n",
            "an announcement is verified at the door",
            _ANNOUNCED,
        ),
        (
            "    if context.cut_points.wallets_of(bundle).get(announcement.owner) != announcement.signer:\n",
            "    if False:\n",
            "nobody announces a wallet that is not its own",
            _ANNOUNCED,
        ),
        (
            "    if transaction.owner != announcement.owner:\n",
            "    if False:\n",
            "the announced owner is the transaction's",
            _ANNOUNCED,
        ),
        (
            "        if announcement.bundle_root != bundle.root:\n",
            "        if False:\n",
            "an announcement names this bundle's root",
            _ANNOUNCED,
        ),
        (
            "        if transaction.tags != bundle_tags("
            "header, bundle.root, context.identity.signing, bundle.end_ms):\n",
            "        if False:\n",
            "a transaction has exactly the bundle's tags",
            _ANNOUNCED,
        ),
    ),
    *_steps(
        "apply_decision",
        (
            "    context.store.archive.save_identities(instance, identities)\n",
            "",
            "agreed messages are remembered",
            f"{_STEPS}/test_agreement.py::test_a_variant_of_a_stored_message_that_comes_late_is_not_stored_again",
        ),
    ),
    *_steps(
        "late",
        (
            "    if number == 0:\n        return\n",
            "    return\n",
            "a late set waits for the one before",
            f"{_SHELL}::test_a_late_set_waits_for_the_one_before",
        ),
        (
            "        _require_horizon_pulls(context)\n",
            "",
            "a late set waits for pulls that are due",
            f"{_SHELL}::test_a_late_set_waits_for_pulls_at_the_horizon_that_are_due",
        ),
        (
            "epoch.parameters.horizon_ms <= now_ms:",
            "epoch.parameters.horizon_ms <= now_ms + 1:",
            "a late set waits for no pull that lies ahead",
            f"{_SHELL}::test_a_late_set_waits_for_pulls_at_the_horizon_that_are_due",
        ),
    ),
    *_steps(
        "catchup",
        (
            "certificate, config.digest, instance, config.committee",
            "certificate, certificate.config_digest, instance, config.committee",
            "a certificate is of this config",
            _FORGED,
        ),
        ("signing, body_digest(body))", "signing)", "a certificate comes with its own outcome", _FORGED),
        (
            "        verify_certificate("
            "certificate, config.digest, instance, config.committee, signing, body_digest(body))\n",
            "        pass\n",
            "a certificate is verified",
            _FORGED,
        ),
    ),
    *_steps(
        "attest",
        (
            "    context.store.reports.save_attestation(attestation)\n",
            "",
            "an attestation is saved before it is said",
            _SAVED,
        ),
    ),
    *_steps(
        "submit",
        (
            "        context.store.reports.save_transaction(number, stored.storage_id, transaction)\n",
            "        context.sender.send(transaction)\n"
            "        context.store.reports.save_transaction(number, stored.storage_id, transaction)\n",
            "a transaction is saved before it is sent",
            _SAVED,
        ),
        (
            "heads[1].number < accepted.block_number",
            "heads[0].number < accepted.block_number",
            "a report is final when its block is",
            _FINAL,
        ),
    ),
    *_steps(
        "upload",
        (
            "    context.store.bundles.save_upload(stored)\n",
            "    context.storage.post(prepared)\n    context.store.bundles.save_upload(stored)\n",
            "an upload is saved before it is paid for",
            _SAVED,
        ),
    ),
    *_steps(
        "retention",
        (
            "path.stat().st_mtime * 1000 > now_ms - 24 * HOUR_MS",
            "path.stat().st_mtime * 1000 > now_ms",
            "a download under way stays",
            f"{_RETENTION}::test_downloads_that_a_killed_process_left_go_after_a_day",
        ),
        (
            "numbers = [0, *range(",
            "numbers = [*range(",
            "the first committee stays",
            f"{_RETENTION}::test_the_cut_points_of_the_first_the_newest_and_the_next_epoch_are_kept",
        ),
    ),
    *_steps(
        "mend",
        ("*_at_brokers(context, instance)]}", "]}", "damaged sets come from brokers", _ALONE),
        (
            "return [r for r in found if r.identity in identities]",
            "return found",
            "of what brokers have by now the agreed is taken",
            _ALONE,
        ),
        (
            "needed = settled is None or lost.newest_ms >= settled.end_ms",
            "needed = True",
            "what nobody needs is forgotten",
            f"{_DAMAGE}::test_a_damaged_set_that_nobody_needs_any_more_is_forgotten",
        ),
    ),
    *_steps(
        "bundle_files",
        (
            'if hashlib.file_digest(held, "sha256").digest() == bundle.sha256:',
            "if True:",
            "a bundle's file is compared with what was sealed",
            f"{_DAMAGE}::test_a_bundle_file_is_written_again",
        ),
    ),
)
