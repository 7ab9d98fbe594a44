"""Fields of other servers and their clients that change nothing here, or that cannot be meant.

With ``sampling_fields``, which are mapped to processors, these are the tables that the request
schemas, the reference page and a test are made of.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamakit.serve.schema_parts import Schema, ignored, refused

_ACCOUNT = "it is for the bookkeeping of a hosted service"
_CACHE = "prompts are cached here in any case"
_SCHEDULING = "it concerns scheduling, not the answer"
_REASONING = "Llama models have no separate reasoning"
_EXTRAS = "it asks for details beside the answer"

IGNORED: Mapping[str, Schema] = {
    **dict.fromkeys(
        ("user", "metadata", "store", "service_tier", "safety_identifier"),
        ignored(_ACCOUNT),
    ),
    **dict.fromkeys(
        (
            *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
            *("cache_prompt", "cache_salt", "cache_control"),
        ),
        ignored(_CACHE),
    ),
    **dict.fromkeys(
        (
            *("request_id", "rid", "priority", "id_slot", "slot_id", "keep_alive", "ttl", "route"),
            *("provider", "drop_params", "n_keep", "n_discard", "backend_sampling"),
        ),
        ignored(_SCHEDULING),
    ),
    **dict.fromkeys(
        ("prediction", "draft_model", "speculative.n_max", "speculative.n_min"),
        ignored("speculative decoding does not change an answer"),
    ),
    **dict.fromkeys(
        (
            *("reasoning_effort", "reasoning", "reasoning_format", "include_reasoning", "thinking"),
            *("think", "enable_thinking", "thinking_budget", "thinking_token_budget"),
            *("thinking_budget_tokens", "separate_reasoning", "stream_reasoning"),
            *("reasoning_in_content", "prompt_mode"),
        ),
        ignored(_REASONING),
    ),
    **dict.fromkeys(
        (
            *("timings_per_token", "return_progress", "verbose", "usage", "details"),
            *("perf_metrics_in_response", "decoder_input_details"),
        ),
        ignored(_EXTRAS),
    ),
    **dict.fromkeys(
        ("guided_decoding_backend", "spaces_between_special_tokens"),
        ignored("it concerns how another server works inside"),
    ),
    **dict.fromkeys(("mm_processor_kwargs", "media_io_kwargs"), ignored("messages hold text only")),
}
"""Fields that cannot change an answer, with the reason."""

NO_SOUND = "this server writes text only"
_BEAMS = "there is no beam search here"
FIXED_TEMPLATE = "the server's prompt format, or prompt_format, writes the prompt"
_ADAPTERS = "the server has one model, and no adapters"
_OTHER_SAMPLING = "there is no such processor; GET /v1/llamakit/options lists what there is"
_TOP_LEVEL = "write its entries as fields of the request"

NOT_OFFERED: Mapping[str, Schema] = {
    "echo": refused("continue_final_message continues the last message", False),
    "moderation": refused("/v1/moderations judges texts, with a Llama Guard"),
    "web_search_options": refused("this server searches nowhere"),
    "plugins": refused("this server searches nowhere", []),
    "modalities": refused(NO_SOUND, ["text"]),
    "audio": refused(NO_SOUND),
    "images": refused("messages hold text only", []),
    "image_data": refused("messages hold text only", []),
    "verbosity": refused("say in the system message how long answers should be", "medium"),
    "chat_template": refused(FIXED_TEMPLATE),
    "template": refused(FIXED_TEMPLATE),
    "instruction_template": refused(FIXED_TEMPLATE),
    "mode": refused(FIXED_TEMPLATE, "instruct"),
    "character": refused(FIXED_TEMPLATE),
    "safe_prompt": refused("write the system message that you want", False),
    "documents": refused("write them into a message", []),
    "add_special_tokens": refused(FIXED_TEMPLATE, False),
}
"""Fields of chat requests that can change an answer and have no equivalent here."""

NOT_OFFERED_ANYWHERE: Mapping[str, Schema] = {
    "system": refused("write it as a message with the role system", ""),
    "context": refused("send the dialog, or the tokens of the prompt"),
    "raw": refused("/v1/completions continues a text as it is", False),
    "options": refused(_TOP_LEVEL, {}),
    "extra_body": refused(_TOP_LEVEL, {}),
    "models": refused("the server has one model", []),
    "transforms": refused("a prompt that is too long is refused, not shortened", []),
    "truncate_prompt_tokens": refused("a prompt that is too long is refused, not shortened"),
    "truncate": refused("a prompt that is too long is refused, not shortened"),
    "prompt_truncate_len": refused("a prompt that is too long is refused, not shortened"),
    "context_length_exceeded_behavior": refused(
        "a prompt that is too long is refused, not shortened", "error"
    ),
    "use_beam_search": refused(_BEAMS, False),
    "num_beams": refused(_BEAMS, 1),
    "length_penalty": refused(_BEAMS, 1),
    "early_stopping": refused(_BEAMS, False),
    "lora": refused(_ADAPTERS, []),
    "lora_path": refused(_ADAPTERS, ""),
    "adapter_id": refused(_ADAPTERS, ""),
    "preset": refused("write its values as fields of the request"),
    "samplers": refused("processors is a list in the order in which they are applied"),
    "logits_processors": refused("processors names those that are registered", []),
    "custom_logit_processor": refused("processors names those that are registered", ""),
    "bad_words": refused("logit_bias forbids tokens", []),
    "bad_words_ids": refused("logit_bias forbids tokens", []),
    "custom_token_bans": refused("logit_bias forbids tokens", ""),
    "allowed_token_ids": refused("a grammar or a regular expression says what is allowed"),
    "logprob_token_ids": refused("logprobs shows the likeliest tokens", []),
    "stop_regex": refused("stop holds strings"),
    "include_stop_str_in_output": refused("a stop string is not part of an answer", False),
    "no_stop_trim": refused("a stop string is not part of an answer", False),
    "skip_special_tokens": refused("special tokens have no text here", True),
    "add_bos_token": refused("a prompt that is tokens is used as it is", True),
    "structural_tag": refused("a grammar says the same"),
    "guided_whitespace_pattern": refused("a grammar says the same"),
    "watermark": refused("answers carry no watermark", False),
    "return_full_text": refused("echo of /v1/completions does that", False),
    "return_hidden_states": refused("answers are text", False),
    "return_tokens_as_token_ids": refused("tokens are shown as text", False),
    "return_token_ids": refused("/tokenize returns them", False),
    "return_tokens": refused("/tokenize returns them", False),
    "prompt_logprobs": refused("echo with logprobs of /v1/completions shows them"),
    "n_probs": refused("logprobs and top_logprobs are there instead", 0),
    "post_sampling_probs": refused("sampler_logprobs shows them", False),
    "response_fields": refused("the response is OpenAI's", []),
    "parse_tool_calls": refused("tool calls are always parsed", True),
    "thinking_forced_open": refused(_REASONING, False),
    "repetition_detection": refused(_OTHER_SAMPLING),
    "vllm_xargs": refused(_OTHER_SAMPLING, {}),
    "kv_transfer_params": refused("the server has a cache of its own", {}),
    "t_max_predict_ms": refused("max_tokens limits an answer", 0, -1),
    "max_time": refused("max_tokens limits an answer", 0),
    "n_indent": refused(_OTHER_SAMPLING, 0),
    "min_keep": refused(_OTHER_SAMPLING, 0, 1),
    "penalize_nl": refused(_OTHER_SAMPLING, True),
    "tfs": refused(_OTHER_SAMPLING, 1),
    "tfs_z": refused(_OTHER_SAMPLING, 1),
    "top_a": refused(_OTHER_SAMPLING, 0),
    "epsilon_cutoff": refused(_OTHER_SAMPLING, 0),
    "eta_cutoff": refused(_OTHER_SAMPLING, 0),
    "smoothing_factor": refused(_OTHER_SAMPLING, 0),
    "encoder_repetition_penalty": refused(_OTHER_SAMPLING, 1),
    "penalty_alpha": refused(_OTHER_SAMPLING, 0),
    "guidance_scale": refused(_OTHER_SAMPLING, 1),
    "negative_prompt": refused(_OTHER_SAMPLING, ""),
    "adaptive_target": refused(_OTHER_SAMPLING, -1),
    "adaptive_decay": refused(_OTHER_SAMPLING),
}
"""The same, of both kinds of requests."""
