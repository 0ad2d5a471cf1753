"""What the figures of a plan depend on, in words."""

from collections.abc import Iterator, Mapping

from parityalign.config import Role, RunConfig, level_in_words
from parityalign.planning import costs
from parityalign.planning.published import Device
from parityalign.planning.sharing import LEVEL, Sharing
from parityalign.planning.sizes import ModelFacts
from parityalign.planning.trial import QUESTION, Trial
from parityalign.planning.works import ANSWER_TOKENS, PAIR_TOKENS, Shares, rationale_tokens


def assumptions(
    config: RunConfig,
    shares: Mapping[str, Shares],
    trial: Trial,
    where: Device,
    known: Mapping[Role, ModelFacts],
) -> list[str]:
    """All assumptions that the figures depend on, but for those of samples and of what is shared."""
    said = [*_of_shares(shares, found=trial.shares)]
    said.append(
        "no image is set aside, training does not stop early; a model in this process reads a prompt once for all draws"
    )
    said.append(
        f"pairs of {PAIR_TOKENS} tokens, answers of {ANSWER_TOKENS}; the question of a pair as long as {QUESTION!r}"
    )
    said.append(f"level: {level_in_words(config.level)}")
    if config.wants_rationales:
        said.append(f"rationales of {rationale_tokens(config)} tokens with their answers, all of them kept")
    if config.level.needs_observations and not config.shows("teacher"):
        left_out = " and ".join(config.level.needs_observations)
        said.append(f"without {left_out}: this teacher gives only text")
    if thoughts := config.loading.teacher.thinking_tokens:
        said.append(f"thoughts of the teacher of {thoughts} tokens before each reply, all its room")
    for role, each in known.items():
        if limit := getattr(config.loading, role).max_pixels:
            said.append(f"{role}: pictures of at most {limit:,} pixels")
        said.extend(f"{role}: {how}" for how in {sizes.assumed for sizes in each.prompt_sizes.values()} if how)
        if measured := each.throughput:
            trained = " and trained a few steps on their answers" if measured.training else ""
            said.append(f"{role}: seconds as measured here, asked about {measured.pairs} pairs{trained}")
            if measured.training and where.is_gpu and config.level.compile is None:
                said.append(
                    f"{role}: training was measured without compiled layers; with them (level.compile) it is faster"
                )
            if measured.not_trained:
                said.append(f"{role}: training was not measured: {measured.not_trained}")
    if batch := config.server.batch:
        said.append(
            f"more than {batch.above:,} questions together by the batch interface, at {batch.price:g} of the prices; "
            "how long it takes is the provider's business"
        )
    said.append(_of_device(where))
    said.append(
        "CPU hours: reading and preparing pictures on one core, as measured here on the sample; each once for the "
        "questions on it, and in training once as far as they are kept, or what a frozen tower makes of them; several "
        "cores share them, and the larger of them and the hours is what it takes"
        + ("; pictures that become larger are cut by the GPU" if where.is_gpu else "")
    )
    said.append("the hours do not include these, nor intake, loading models and the report")
    said.append(
        "not counted: reading and comparing attention and distributions, beyond the passes through "
        "the models, and the timing of the student in `evaluate`"
    )
    return said


def _of_shares(shares: Mapping[str, Shares], found: Mapping[str, Shares]) -> Iterator[str]:
    """What comes of the draws, and how that is known."""
    for name in found:
        each = shares[name]
        yield (
            f"on the sample of {name} {each.pairs:.0%} of the draws became pairs; it is reckoned that the student has "
            f"{each.failed:.0%} of them wrong, and that {each.gaps:.0%} are gaps"
        )
    if not_tried := [name for name in shares if name not in found]:
        where = f"not tried on pictures of {' and '.join(not_tried)}: " if found else ""
        rate = shares[not_tried[0]].failed
        yield f"{where}the student has {rate:.0%} of the pairs wrong and each of these is a gap; every reply is a pair"


def _of_device(where: Device) -> str:
    return (
        f"{where.name}: peak {where.operations / 1e12:,.3g} teraflops, of which {costs.USED:.0%} are reached; "
        f"{where.bandwidth / 1e9:,.0f} GB per second, of which {costs.STREAMED:.0%} are reached; "
        f"at least {costs.STEP_SECONDS[where.is_gpu]:g} s for each "
        "token of a batch's replies"
    )


def shared_in_words(sharing: Mapping[str, Sharing]) -> Iterator[str]:
    """What shares work, where something does."""
    for what, found in sharing.items():
        if found.processes > 1:
            shared = "each step; what they send one another is not counted" if what == LEVEL else "its questions"
            yield f"{what}: {found.in_words}, share {shared}; memory is that of one"
        elif found.on_ray:
            yield f"{what}: {found.in_words}, of which one is counted; loading.{what}.replicas says how many to count"
