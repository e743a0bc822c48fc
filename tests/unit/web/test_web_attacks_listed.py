"""The attack suite as a list: every class of the advisories of other annotation servers, and every line that ours must withstand.

Each stands with the tests that make the attack; a test that is renamed or removed fails here.
"""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
ADVISORIES = {
    "CVE-2022-36551 server-side requests and files read by an import": [
        "unit/web/test_web_attacks_server.py::test_an_import_reads_no_address_and_no_path"
    ],
    "CVE-2022-36551 self-registration is on by default": [
        "unit/web/test_web_attacks_server.py::test_nobody_registers_without_an_invitation_and_there_is_no_account_to_begin_with"
    ],
    "GHSA-cpmr-mw4j-99r7 traversal out of the static files to the settings": [
        "unit/web/test_web_app.py::test_no_path_leads_out"
    ],
    "CVE-2023-43791 a key in the code forges sessions": [
        "unit/web/test_web_attacks_server.py::test_the_servers_key_is_random_and_its_owners_alone",
        "unit/web/test_web_attacks_server.py::test_who_knows_the_servers_key_cannot_make_a_session",
    ],
    "CVE-2023-47115 scripts in an uploaded picture": ["unit/web/test_web_attacks_server.py::test_a_form_takes_no_file"],
    "CVE-2023-47117 a filter by password, through the names of columns": [
        "unit/web/test_web_attacks_server.py::test_filters_and_sorts_of_the_api_take_names_only",
        "unit/web/test_web_disputes.py::test_filters_and_sorts_take_names_only",
    ],
    "CVE-2024-23633 scripts in an imported file": [
        "web/test_web_attacks.py::test_each_payload_alone_stays_text_while_it_is_rated",
        "unit/web/test_web_rendering.py::test_no_payload_leaves_a_tag_that_is_not_allowed",
    ],
    "CVE-2023-47116 the guard of requests passed by a redirect": [
        "unit/web/test_web_webhooks.py::test_redirects_are_not_followed"
    ],
    "CVE-2023-47116 the guard of requests passed by a name that changes": [
        "unit/web/test_web_webhooks.py::test_rebinding_changes_nothing_for_the_address_that_was_checked_is_connected_to"
    ],
    "CVE-2024-26152 scripts in labels and choices": [
        "web/test_web_answers.py::test_payloads_in_the_new_fields_stay_text"
    ],
    "CVE-2025-25295 traversal by the names in an export": [
        "unit/web/test_web_attacks_server.py::test_names_lead_to_no_place_in_an_export"
    ],
    "CVE-2025-25296 and CVE-2025-47783 scripts that an address sends back": [
        "unit/web/test_web_attacks_server.py::test_no_page_says_back_what_its_address_says"
    ],
    "CVE-2025-25297 server-side requests by an address in the settings": [
        "unit/web/test_web_webhooks.py::test_addresses_inside_a_network_are_refused_in_every_dress",
        "unit/web/test_web_webhooks.py::test_numbers_that_some_programs_read_as_addresses_are_refused",
        "unit/web/test_web_webhooks.py::test_mixed_records_are_refused",
    ],
    "CVE-2026-22033 scripts in stored keys and settings": [
        "web/test_web_attacks.py::test_no_page_runs_or_loads_what_is_in_any_column"
    ],
    "CVE-2026-22033 another person's settings and items": ["unit/web/test_web_app.py::test_roles_and_routes"],
    "CVE-2026-22033 a token in an answer": [
        "unit/web/test_web_attacks_server.py::test_a_token_is_shown_once_and_in_no_later_answer",
        "unit/web/test_web_api.py::test_a_token_is_kept_as_a_hash_and_never_logged",
    ],
    "LS 9801 server-side requests by a webhook": [
        "unit/web/test_web_webhooks.py::test_odd_addresses_are_refused",
        "unit/web/test_web_webhooks.py::test_a_stored_address_is_checked_again_at_every_delivery",
    ],
    "GHSA-q9m2-fhv9-3jcf (Potato) traversal": ["unit/web/test_web_app.py::test_no_path_leads_out"],
    "CVE-2024-40441 (doccano) server-side requests by automatic labels": [
        "unit/engine/test_engine_chat.py::test_a_redirect_is_not_followed",
        "unit/engine/test_engine_chat.py::test_what_is_no_address_is_refused",
    ],
    "CVE-2025-5173 (label-studio-ml) a file that runs when it is loaded": [
        "unit/web/test_web_attacks_server.py::test_nothing_that_is_read_is_run"
    ],
    "Argilla: accounts and keys by default": [
        "unit/web/test_web_attacks_server.py::test_nobody_registers_without_an_invitation_and_there_is_no_account_to_begin_with"
    ],
    "Argilla: every origin is let in": [
        "unit/web/test_web_attacks_server.py::test_no_other_origin_is_let_in",
        "unit/web/test_web_api.py::test_a_cookie_says_nothing_to_the_api_and_a_foreign_page_is_refused",
    ],
    "Label Studio: the content policy only reports, and allows inline": [
        "unit/web/test_web_app.py::test_answers_carry_a_strict_policy_with_a_nonce_of_their_own"
    ],
    "Label Studio: no token against foreign forms": [
        "unit/web/test_web_attacks_server.py::test_no_form_is_taken_without_its_token"
    ],
    "Label Studio: sessions are signed cookies": [
        "unit/web/test_web_attacks_server.py::test_who_knows_the_servers_key_cannot_make_a_session"
    ],
    "Label Studio and Potato: no limit on logins": [
        "unit/web/test_web_people.py::test_failures_delay_the_account_and_the_address"
    ],
    "Potato: no limit on what is sent": [
        "unit/web/test_web_app.py::test_large_requests_are_refused_whatever_they_say_of_their_size"
    ],
    "doccano: a known key and pages of faults with their insides": [
        "unit/web/test_web_attacks_server.py::test_the_servers_key_is_random_and_its_owners_alone",
        "unit/web/test_web_attacks_server.py::test_an_error_of_ours_shows_no_trace_and_no_secret",
        "unit/web/test_web_attacks_server.py::test_no_console_and_no_documents_of_the_framework",
    ],
}
MUST_WITHSTAND = {
    "1 scripts in output of models, prompts, reasons, guidelines, names, cells, keys": [
        "web/test_web_attacks.py::test_no_page_runs_or_loads_what_is_in_any_column",
        "web/test_web_attacks.py::test_the_detector_sees_what_runs_and_what_loads",
        "web/test_web_writing.py::test_payloads_in_prompt_draft_reply_reason_and_edit_stay_text",
        "web/test_web_talk.py::test_payloads_in_messages_and_replies_stay_text",
        "unit/web/test_web_app.py::test_payloads_from_every_field_are_text",
    ],
    "1 nothing is loaded from elsewhere": ["web/test_web_attacks.py::test_no_page_runs_or_loads_what_is_in_any_column"],
    "1 hidden and turned characters": [
        "unit/web/test_web_rendering.py::test_hidden_characters_are_shown_and_spelling_is_left"
    ],
    "1 an enforced policy with nonces": [
        "unit/web/test_web_app.py::test_answers_carry_a_strict_policy_with_a_nonce_of_their_own"
    ],
    "2 token and origin on every unsafe method": [
        "unit/web/test_web_attacks_server.py::test_no_form_is_taken_without_its_token",
        "unit/web/test_web_app.py::test_a_form_of_another_site_is_refused",
        "unit/web/test_web_app.py::test_a_token_of_another_session_is_refused",
    ],
    "2 cookies are for the server only": ["unit/web/test_web_app.py::test_cookies_are_for_the_server_only"],
    "3 passwords are hashed, and an unknown name costs the same": [
        "unit/web/test_web_people.py::test_secrets_are_kept_as_hashes_only",
        "unit/web/test_web_people.py::test_wrong_name_and_wrong_password_have_one_answer",
    ],
    "3 backoff by account and by address": [
        "unit/web/test_web_people.py::test_failures_delay_the_account_and_the_address"
    ],
    "3 sessions change and end, everywhere at once": [
        "unit/web/test_web_app.py::test_the_session_changes_at_login_and_ends_at_logout",
        "unit/web/test_web_people.py::test_sessions_end",
    ],
    "3 invitations expire and are good once": [
        "unit/web/test_web_people.py::test_an_invitation_expires",
        "unit/web/test_web_people.py::test_an_invitation_lets_one_person_in",
    ],
    "4 roles and routes, of pages and of the API": [
        "unit/web/test_web_app.py::test_roles_and_routes",
        "unit/web/test_web_app.py::test_every_route_is_in_the_table",
        "unit/web/test_web_api_routes.py::test_roles_scopes_and_routes",
        "unit/web/test_web_api_routes.py::test_every_route_is_in_the_table_and_in_the_openapi_document",
    ],
    "4 one's own items and lists only": [
        "unit/web/test_web_app.py::test_another_raters_item_is_not_shown",
        "unit/web/test_web_attacks_server.py::test_what_one_person_did_is_in_no_list_of_another",
        "unit/web/test_web_disputes.py::test_another_projects_item_is_not_there",
        "unit/web/test_web_webhooks.py::test_another_projects_webhook_is_not_there",
        "unit/web/test_web_chats.py::test_conversations_of_others_are_missing",
    ],
    "4 ids cannot be guessed": ["unit/web/test_web_attacks_server.py::test_ids_say_nothing_and_cannot_be_guessed"],
    "5 filters and sorts": [
        "unit/web/test_web_attacks_server.py::test_filters_and_sorts_of_the_api_take_names_only",
        "unit/web/test_web_disputes.py::test_filters_and_sorts_take_names_only",
        "unit/web/test_web_api_twins.py::test_filters_take_names_only",
    ],
    "5 formulas in cells": ["unit/web/test_web_attacks_server.py::test_formulas_are_text_in_every_table_that_goes_out"],
    "6 requests of the server: webhooks": [
        "unit/web/test_web_webhooks.py::test_addresses_inside_a_network_are_refused_in_every_dress",
        "unit/web/test_web_webhooks.py::test_redirects_are_not_followed",
        "unit/web/test_web_webhooks.py::test_rebinding_changes_nothing_for_the_address_that_was_checked_is_connected_to",
        "unit/web/test_web_webhooks.py::test_loopback_needs_the_switch_and_opens_nothing_else",
    ],
    "6 requests of the server: judges and engines": [
        "unit/engine/test_engine_chat.py::test_a_redirect_is_not_followed",
        "unit/engine/test_engine_remote.py::test_redirects_are_not_followed",
    ],
    "6 requests of the server: imports": [
        "unit/web/test_web_attacks_server.py::test_an_import_reads_no_address_and_no_path"
    ],
    "7 archives that grow": [
        "unit/formats/test_formats_annotations.py::test_gzip_bombs_archives_and_bad_text_stop_with_a_clear_message",
        "unit/web/test_web_attacks_server.py::test_archives_and_paths_are_no_import",
        "unit/web/test_web_bad_input.py::test_a_file_that_grows_when_it_is_unpacked",
    ],
    "7 deep JSON, huge lines, NUL, text that is none": [
        "unit/web/test_web_attacks_server.py::test_json_bombs_are_refused_and_the_server_goes_on",
        "unit/web/test_web_exchange.py::test_a_bad_line_is_listed_with_its_number_and_reason_and_the_rest_goes_in",
        "unit/web/test_web_exchange.py::test_a_line_without_end_takes_no_memory",
        "unit/web/test_web_app.py::test_a_nul_character_is_refused_wherever_it_comes",
    ],
    "7 a response of 100 MB": ["unit/web/test_web_bad_input.py::test_a_response_of_100_mb"],
    "8 traversal by imports and exports": [
        "unit/web/test_web_attacks_server.py::test_archives_and_paths_are_no_import",
        "unit/web/test_web_attacks_server.py::test_names_lead_to_no_place_in_an_export",
    ],
    "9 the key's file": ["unit/web/test_web_attacks_server.py::test_the_servers_key_is_random_and_its_owners_alone"],
    "9 tokens are hashed, in no answer and in no log": [
        "unit/web/test_web_api.py::test_a_token_is_kept_as_a_hash_and_never_logged",
        "unit/web/test_web_attacks_server.py::test_a_token_is_shown_once_and_in_no_later_answer",
        "unit/engine/test_engine_chat.py::test_what_would_fail_every_time_is_not_tried_again_and_the_key_is_not_told",
    ],
    "10 models, order, lengths and other raters stay hidden": [
        "web/test_web_blinding.py::test_pages_and_requests_name_no_model_item_or_completion",
        "web/test_web_blinding.py::test_the_page_is_the_same_whoever_wrote_the_replies",
        "web/test_web_blinding.py::test_two_raters_on_opposite_sides_get_the_same_page_but_for_the_replies",
        "web/test_web_blinding.py::test_no_rater_is_told_of_anothers_vote",
        "unit/web/test_web_app.py::test_nothing_in_a_page_tells_the_model_or_the_order",
        "unit/web/test_web_rated.py::test_conversations_go_out_in_every_format_of_votes",
    ],
    "11 a reply that speaks to the judge": [
        "unit/rewards/test_rewards_endpoint.py::test_a_reply_cannot_write_the_marks_or_speak_for_the_judge"
    ],
    "12 pseudonyms in exports": ["unit/web/test_web_transfer.py::test_an_export_names_no_rater_and_no_account"],
    "12 a person is erased": [
        "unit/web/test_web_erasing.py::test_nothing_of_a_person_is_left_but_the_votes",
        "unit/web/test_web_erasing.py::test_the_bytes_are_gone_from_the_file_too",
        "unit/web/test_web_rated.py::test_who_is_erased_is_gone_from_files_of_other_tools_too",
    ],
}


@pytest.mark.parametrize("name", [*ADVISORIES, *MUST_WITHSTAND])
def test_each_attack_of_the_lists_has_its_tests(name):
    for place in {**ADVISORIES, **MUST_WITHSTAND}[name]:
        file, _, test = place.partition("::")
        assert re.search(rf"^def {test}\(", (HERE / file).read_text(encoding="utf-8"), flags=re.M), place


def test_every_line_of_both_lists_is_there():
    """Ids of the advisories as published, and the twelve lines."""
    ids = {"CVE-2022-36551", "GHSA-cpmr-mw4j-99r7", "CVE-2023-43791", "CVE-2023-47115", "CVE-2023-47117", "CVE-2024-23633", "CVE-2023-47116",
           "CVE-2024-26152", "CVE-2025-25295", "CVE-2025-25296", "CVE-2025-25297", "CVE-2025-47783", "CVE-2026-22033", "LS 9801",
           "GHSA-q9m2-fhv9-3jcf", "CVE-2024-40441", "CVE-2025-5173"}  # fmt: skip
    assert not {id_ for id_ in ids if not any(id_ in name for name in ADVISORIES)}
    assert {name.split()[0] for name in MUST_WITHSTAND} == {str(number) for number in range(1, 13)}
