"""The options that jemalloc reads from MALLOC_CONF, and the string it reads, checked against the release."""

# Copyright (c) 2026, the preload.jemalloc contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations

import difflib
import re
import typing as t

from ansible_collections.preload.jemalloc.plugins.module_utils import _catalogue as catalogue
from ansible_collections.preload.jemalloc.plugins.module_utils._errors import JemallocError, about

if t.TYPE_CHECKING:
    from ansible_collections.preload.jemalloc.plugins.module_utils import _systemd as systemd

# Kind, first and last release of each option; an open end: the newest release that was looked at has it. An option
# whose meaning changed has several entries. From the parsers in src/jemalloc.c of the releases 3.6.0 to 5.3.1, and
# from what libraries built of them say. A kind is a row of words and ranges (of decimals where the first has a point),
# of which one has to fit, a class of letters, or one of _SYNTAX. Where jemalloc clips a value without a word the range
# is that of the values that count; where that depends on the host (pages, huge pages) it is wider, and where a value
# takes all memory at the start, lets 5.3.0 hang (hpa_hugification_threshold) or 5.0 to 5.2 crash (lg_tcache_max) it is
# narrower. Left out is dss of 3.6.0, as its configure does by itself.
_OPTIONS: t.Dict[str, t.Tuple[t.Tuple[str, str, str], ...]] = {
    "abort": (("true|false", "3.6.0", ""),),
    "abort_conf": (("true|false", "5.0.0", ""),),
    "background_thread": (("true|false", "5.0.0", ""),),
    "bin_shards": (("shards", "5.2.0", ""),),
    "cache_oblivious": (("true|false", "5.3.1", ""),),
    "calloc_madvise_threshold": (("0..", "5.3.1", ""),),
    "confirm_conf": (("true|false", "5.2.1", ""),),
    "debug_double_free_max_scan": (("0..4294967295", "5.3.1", ""),),
    "decay_time": (("-1..18446744072", "4.1.0", "4.5.0"),),
    "dirty_decay_ms": (("-1..18446744072000", "5.0.0", ""),),
    "disable_large_size_classes": (("true|false", "5.3.1", ""),),
    "dss": (("disabled|primary|secondary", "4.0.0", ""),),
    "experimental_hpa_enforce_hugify": (("true|false", "5.3.1", ""),),
    "experimental_hpa_max_purge_nhp": (("-1..", "5.3.1", ""),),
    "experimental_hpa_start_huge_if_thp_always": (("true|false", "5.3.1", ""),),
    "experimental_infallible_new": (("true|false", "5.3.0", ""),),
    "experimental_tcache_gc": (("true|false", "5.3.1", ""),),
    "hpa": (("true|false", "5.3.0", ""),),
    "hpa_dirty_mult": (("-1|0.0..65535.0", "5.3.0", ""),),
    "hpa_hugification_threshold": (("1048576..", "5.3.0", "5.3.0"), ("0..", "5.3.1", "")),
    "hpa_hugification_threshold_ratio": (("0.5..1.0", "5.3.0", "5.3.0"), ("0.0..1.0", "5.3.1", "")),
    "hpa_hugify_delay_ms": (("0..", "5.3.0", ""),),
    "hpa_hugify_style": (("auto|none|eager|lazy", "5.3.1", ""),),
    "hpa_hugify_sync": (("true|false", "5.3.1", ""),),
    "hpa_min_purge_delay_ms": (("0..", "5.3.1", ""),),
    "hpa_min_purge_interval_ms": (("0..", "5.3.0", ""),),
    "hpa_purge_threshold": (("0..", "5.3.1", ""),),
    "hpa_purge_threshold_ratio": (("0.0..1.0", "5.3.1", ""),),
    "hpa_sec_batch_fill_extra": (("0..", "5.3.0", ""),),
    "hpa_sec_bytes_after_flush": (("0..", "5.3.0", "5.3.0"),),
    "hpa_sec_max_alloc": (("0..", "5.3.0", ""),),
    "hpa_sec_max_bytes": (("0..", "5.3.0", ""),),
    "hpa_sec_nshards": (("0..1024", "5.3.0", ""),),
    "hpa_slab_max_alloc": (("0..", "5.3.0", ""),),
    "huge_arena_pac_thp": (("true|false", "5.3.1", ""),),
    "junk": (("true|false", "3.6.0", "3.6.0"), ("true|false|alloc|free", "4.0.0", "")),
    "lg_chunk": (("15..30", "3.6.0", "3.6.0"), ("16..30", "4.0.0", "4.5.0")),
    "lg_dirty_mult": (("-1..63", "3.6.0", "4.5.0"),),
    "lg_extent_max_active_fit": (("0..64", "5.1.0", ""),),
    "lg_prof_interval": (("-1..63", "3.6.0", ""),),
    "lg_prof_sample": (("0..63", "3.6.0", ""),),
    "lg_san_uaf_align": (("-1..63", "5.3.0", ""),),
    "lg_tcache_flush_large_div": (("1..16", "5.3.0", ""),),
    "lg_tcache_flush_small_div": (("1..16", "5.3.0", ""),),
    "lg_tcache_max": (("-1..62", "3.6.0", "5.2.1"), ("0..62", "5.3.0", "")),
    "lg_tcache_nslots_mul": (("-16..16", "5.3.0", ""),),
    "log": (("text", "5.1.0", ""),),
    "max_background_threads": (("1..4094", "5.1.0", ""),),
    "metadata_thp": (("disabled|auto|always", "5.1.0", ""),),
    "mutex_max_spin": (("-1..", "5.3.0", ""),),
    "muzzy_decay_ms": (("-1..18446744072000", "5.0.0", ""),),
    "narenas": (("1..4094", "3.6.0", "5.2.1"), ("default|1..4094", "5.3.0", "")),
    "narenas_ratio": (("0.0..16.0", "5.3.0", ""),),
    "oversize_threshold": (("0..", "5.2.0", ""),),
    "percpu_arena": (("disabled|percpu|phycpu", "5.0.0", ""),),
    "process_madvise_max_batch": (("0..", "5.3.1", ""),),
    "prof": (("true|false", "3.6.0", ""),),
    "prof_accum": (("true|false", "3.6.0", ""),),
    "prof_active": (("true|false", "3.6.0", ""),),
    "prof_bt_max": (("1..256", "5.3.1", ""),),
    "prof_final": (("true|false", "3.6.0", ""),),
    "prof_gdump": (("true|false", "3.6.0", ""),),
    "prof_leak": (("true|false", "3.6.0", ""),),
    "prof_leak_error": (("true|false", "5.3.0", ""),),
    "prof_log": (("true|false", "5.2.0", ""),),
    "prof_pid_namespace": (("true|false", "5.3.1", ""),),
    "prof_prefix": (("text", "3.6.0", ""),),
    "prof_recent_alloc_max": (("-1..", "5.3.0", ""),),
    "prof_stats": (("true|false", "5.3.0", ""),),
    "prof_sys_thread_name": (("true|false", "5.3.0", ""),),
    "prof_thread_active_init": (("true|false", "4.0.0", ""),),
    "prof_time_resolution": (("default|high", "5.3.0", ""),),
    "prof_unbias": (("true|false", "5.3.0", ""),),
    "purge": (("ratio|decay", "4.1.0", "4.5.0"),),
    "quarantine": (("0..", "3.6.0", "4.5.0"),),
    "redzone": (("true|false", "3.6.0", "4.5.0"),),
    "retain": (("true|false", "5.0.0", ""),),
    "san_guard_large": (("0..", "5.3.0", ""),),
    "san_guard_small": (("0..", "5.3.0", ""),),
    "slab_sizes": (("sizes", "5.2.0", "5.2.1"), ("default|sizes", "5.3.0", "")),
    "stats_interval": (("-1..", "5.3.0", ""),),
    "stats_interval_opts": (("[Jgmdablxeh]", "5.3.0", ""),),
    "stats_print": (("true|false", "3.6.0", ""),),
    "stats_print_opts": (
        ("[Jgmdablx]", "5.0.0", "5.1.0"),
        ("[Jgmdablxe]", "5.2.0", "5.2.1"),
        ("[Jgmdablxeh]", "5.3.0", ""),
    ),
    "tcache": (("true|false", "3.6.0", ""),),
    "tcache_gc_delay_bytes": (("0..", "5.3.0", ""),),
    "tcache_gc_incr_bytes": (("1024..", "5.3.0", ""),),
    "tcache_max": (("0..", "5.3.0", ""),),
    "tcache_ncached_max": (("sizes", "5.3.1", ""),),
    "tcache_nslots_large": (("1..2048", "5.3.0", ""),),
    "tcache_nslots_small_max": (("1..2048", "5.3.0", ""),),
    "tcache_nslots_small_min": (("1..2048", "5.3.0", ""),),
    "thp": (("true|false", "4.5.0", "4.5.0"), ("default|always|never", "5.1.0", "")),
    "trust_madvise": (("true|false", "5.3.0", ""),),
    "utrace": (("true|false", "3.6.0", ""),),
    "valgrind": (("true|false", "3.6.0", "3.6.0"),),
    "xmalloc": (("true|false", "3.6.0", ""),),
    "zero": (("true|false", "3.6.0", ""),),
    "zero_realloc": (("alloc|free|abort", "5.3.0", ""),),
}

# Known only to a library that was built so: by an option of the module jemalloc, or by one of configure that it never
# gives. All that begins with prof or lg_prof is for profiling.
_NEEDS = {
    "experimental_infallible_new": "cxx",
    "lg_san_uaf_align": "--enable-uaf-detection",
    "log": "--enable-log",
    "utrace": "--enable-utrace",
    "valgrind": "Valgrind's headers",
    "xmalloc": "--enable-xmalloc",
}
_PROFILING = ("prof", "lg_prof")

# Later ones took the place of earlier ones.
_SUCCESSIONS = (("lg_dirty_mult", "decay_time", "dirty_decay_ms"), ("lg_tcache_max", "tcache_max"))

# What a value has to look like that is neither a word nor a number, and how that is called. jemalloc knows no escaping.
_SIZES = "[0-9]{1,18}-[0-9]{1,18}:%s"
_SYNTAX = {
    "shards": (_SIZES % "([1-9]|[1-5][0-9]|6[0-4])", "FROM-TO:N with sizes in bytes and N from 1 to 64, joined by |"),
    "sizes": (_SIZES % "[1-9][0-9]{0,4}", "FROM-TO:N with sizes in bytes and N from 1 to 99999, joined by |"),
    "text": (r"[A-Za-z0-9_./%+|:@-]*", "a text of letters, digits and _./%+|:@-"),
}

_WHOLE = re.compile("0|-?[1-9][0-9]{0,19}")
_DECIMAL = re.compile(r"[0-9]{1,5}(\.[0-9]{1,18})?")

# Where a range has no end: below what any release has a size class for.
_HIGHEST = 1 << 62

# The number of arenas that all releases take without a word.
_MOST_ARENAS = 4094


def of_service(unit: systemd.Unit, version: str, built: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]]) -> str:
    """Return the string for a service that preloads a release; built has the options of each release's build."""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _cpus as cpus

    with about(f"services: {unit.name}"):
        return encode(unit.wanted.malloc_conf, version, built.get(version), cpus.usable(unit.properties))


def options_of(given: t.Any) -> t.Dict[str, t.Any]:
    """Return options by name: as they are given, or out of the string that jemalloc reads, name:value,name:value."""
    if isinstance(given, str):
        pairs = [each.partition(":") for each in given.split(",") if each]
        wrong = [name for name, colon, value in pairs if not (name and colon and value)]
        if not wrong:
            return {name: value for name, _colon, value in pairs}
        raise JemallocError(f"malloc_conf: {wrong[0]!r} has no value; write it as in narenas:2,background_thread:true.")
    if isinstance(given, dict):
        return given
    raise JemallocError("malloc_conf: it is to have names and values, as {narenas: 2} or narenas:2.")


def of_host(given: t.Any, version: str, built: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]]) -> str:
    """Return the MALLOC_CONF of the whole host, for the current release; empty where no options are given."""
    if not given:
        return ""
    from ansible_collections.preload.jemalloc.plugins.module_utils import _cpus as cpus

    return encode(options_of(given), version, built.get(version), cpus.usable({}))


def encode(
    options: t.Mapping[str, t.Any],
    version: str,
    built: t.Optional[t.Mapping[str, t.Any]] = None,
    cpus: t.Optional[int] = None,
) -> str:
    """Return the string that a release reads from MALLOC_CONF for options given as name: value.

    jemalloc only warns of what it does not know and goes on; so a name or value that this release does not take is an
    error here. built has the options of the library's build; None: they are not known. cpus is what narenas: auto is
    worked out of. The options of a preset come first, and give way to those that are there by name; None takes one out.
    """
    whole = {**_preset(options, version), **options}
    whole.pop("preset", None)
    if whole.get("narenas") == "auto":
        whole["narenas"] = _arenas(cpus)
    given = {str(name): value for name, value in whole.items() if value is not None}
    found = {name: _value(name, value, version, built) for name, value in given.items()}
    if found.get("prof_leak_error") == "true" and found.get("prof_final") != "true":
        raise JemallocError("malloc_conf: prof_leak_error: true counts only with prof_final: true; give both.")
    return ",".join(f"{name}:{value}" for name, value in found.items())


def _preset(options: t.Mapping[str, t.Any], version: str) -> t.Dict[str, t.Any]:
    """Return the options of the preset that is named among options, those that a release has."""
    if options.get("preset") is None:
        return {}
    from ansible_collections.preload.jemalloc.plugins.module_utils import _presets as presets

    def takes(name: str, value: t.Any) -> bool:
        kind = _kind_in(name, version)
        return kind is not None and _fits(_text(value), kind)

    found = presets.options(options["preset"], takes)
    if not found:
        raise JemallocError(
            f"malloc_conf: jemalloc {version} has none of the options of the preset {options['preset']}; take another."
        )
    return found


def _arenas(cpus: t.Optional[int]) -> int:
    """Return as many arenas as jemalloc itself would take on a host with these CPUs."""
    if cpus is None:
        raise JemallocError("malloc_conf: narenas: auto needs the CPUs of a service's host; give a number.")
    return 1 if cpus <= 1 else min(4 * cpus, _MOST_ARENAS)


def _value(name: str, value: t.Any, version: str, built: t.Optional[t.Mapping[str, t.Any]]) -> str:
    """Return one value as jemalloc reads it."""
    kind = kind_of(name, version)
    need = "prof" if name.startswith(_PROFILING) else _NEEDS.get(name)
    if need and built is not None and not built.get(need):
        if need in ("prof", "cxx"):
            raise JemallocError(
                f"malloc_conf: {name} needs a library that was built for {'profiling' if need == 'prof' else 'C++'}; "
                f"build jemalloc {version} with options: {{{need}: true}}."
            )
        raise JemallocError(f"malloc_conf: {name} needs a library built with {need}, which none is that is built here.")
    text = _text(value)
    if not _fits(text, kind):
        raise JemallocError(
            f"malloc_conf: {name}: {value!r} is not what jemalloc {version} takes there, {_words(kind)}."
        )
    return text


def _text(value: t.Any) -> str:
    """Return a value as it is written."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fits(text: str, kind: str) -> bool:
    """Whether a value is of a kind."""
    return any(_fits_one(text, each) for each in kind.split("|"))


def _fits_one(text: str, kind: str) -> bool:
    """Whether a value is of a kind that is no row of them."""
    if kind.startswith("["):
        return re.fullmatch(f"{kind}*", text) is not None
    if kind in _SYNTAX:
        pattern = _SYNTAX[kind][0]
        return re.fullmatch(pattern if kind == "text" else rf"{pattern}(\|{pattern})*", text) is not None
    lowest, dots, highest = kind.partition("..")
    if not dots:
        return text == kind
    # Leading zeros would make a whole number octal.
    if "." in lowest:
        return bool(_DECIMAL.fullmatch(text)) and float(lowest) <= float(text) <= float(highest)
    return bool(_WHOLE.fullmatch(text)) and int(lowest) <= int(text) <= int(highest or _HIGHEST)


def _words(kind: str) -> str:
    """Return how a kind is called."""
    kinds = kind.split("|")
    chosen = [each for each in kinds if each == "-1" or (each.isalpha() and each not in _SYNTAX)]
    found = [f"one of {', '.join(chosen)}" if len(chosen) > 2 else " or ".join(chosen)] if chosen else []
    for each in kinds:
        lowest, dots, highest = each.partition("..")
        if dots:
            whole = "a number" if "." in lowest else "a whole number"
            found.append(f"{whole} from {lowest} {f'to {highest}' if highest else 'on'}")
        elif each.startswith("["):
            found.append(f"any of the letters {each.strip('[]')}")
        elif each in _SYNTAX:
            found.append(_SYNTAX[each][1])
    return " or ".join(found)


def kind_of(name: str, version: str) -> str:
    """Return the kind of an option's value in a release; an option that it does not have is an error."""
    kind = _kind_in(name, version)
    if kind is not None:
        return kind
    if name in _OPTIONS:
        rows = [row for row in _SUCCESSIONS if name in row]
        others = [each for row in rows for each in reversed(row) if _kind_in(each, version)]
        instead = f", where {others[0]} is in its place" if others else ""
        raise JemallocError(f"malloc_conf: jemalloc {version} has no option {name}{instead}; it {_there(name)}.")
    close = difflib.get_close_matches(name, _OPTIONS, 1)
    hint = f"did you mean {close[0]}, which {_there(close[0])}?" if close else "see OPTIONS in jemalloc(3)."
    raise JemallocError(f"malloc_conf: jemalloc has no option {name!r}; {hint}")


def _kind_in(name: str, version: str) -> t.Optional[str]:
    """Return the kind of an option's value in a release, None where it has no such option."""
    number = catalogue.version_number(version)
    for kind, since, until in _OPTIONS.get(name, ()):
        if catalogue.version_number(since) <= number and (not until or number <= catalogue.version_number(until)):
            return kind
    return None


def _there(name: str) -> str:
    """Return which releases have an option."""
    spans: t.List[t.Tuple[str, str]] = []
    for _kind, since, until in _OPTIONS[name]:
        if spans and _follows(spans[-1][1], since):  # another kind only
            since = spans.pop()[0]
        spans.append((since, until))
    return f"is there in {' and '.join(_span(*span) for span in spans)}"


def _span(since: str, until: str) -> str:
    """Return releases from one to another, in words."""
    if since == until:
        return since
    return f"{since} to {until}" if until else f"{since} on"


def _follows(until: str, since: str) -> bool:
    """Whether no release lies between one and the other."""
    known = list(catalogue.RELEASES)
    return until in known and known.index(until) + 1 == known.index(since)
