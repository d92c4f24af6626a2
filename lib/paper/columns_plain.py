"""The formats of values that stand in prose alone and in no table: (format, unit) → names."""

from __future__ import annotations

PLAIN: dict[tuple[str, str], str] = {
    ("+.0%", ""): "native_ours native_theirs",
    (".3g", ""): "together",
    ("+.1%", ""): "placed_other placed_other_served placed_same placed_same_served",
    (".0%", ""): (
        "carried claimed_gain claimed_least claimed_margin claimed_most copies_kept "
        "copies_wide_kept deepep_alone even_loses gain_balanced packing_kept "
        "predecessor_least predecessor_most slowdown_claimed slowdown_most slowdown_top "
        "step_slow"
    ),
    (".0e", ""): "simgrid_approximate_error simgrid_flow_error simgrid_makespan_error",
    (".0f", ""): "compared_documents native_tokens_few native_tokens_many recorded_tokens",
    (".0f", "KiB"): "launch_kib",
    (".0f", "MiB"): "launch_mib",
    (".3g", "times"): "call_over",
    (".1%", ""): (
        "base_over_even deepep_combine deepep_combine_left_out deepep_dispatch "
        "deepep_dispatch_left_out deepep_others fresh_large fresh_layer "
        "bias_saves fresh_small mean_growth_least moved_saves nodes_off "
        "p99_growth_least packed_saves reversal slow_off time_off"
    ),
    (".1f", ""): "deepep_combine_nic deepep_dispatch_nic scale_few scale_many",
    (".1f", "µs"): "start_skew_us",
    (".2f", ""): (
        "counts_copied counts_copied_mixed counts_copied_moved counts_mixed counts_moved "
        "counts_order counts_packed counts_random counts_random_once fair_free fair_most "
        "p99_over_mean_top prompt prompt_p99 slowdown_trace tail_batch tail_placement "
        "tail_repetition trace_ratio_most"
    ),
    (".2f", "µs"): "message_us",
    (".4f", ""): "gain_least gain_most",
    (".4g", ""): "highest_level",
    ("g", ""): "scale_level step_level",
}
