"""What is done on the shown slide, as commands: its tissue, the query, a run's attention."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.core.command import Command
from napari_mcm.core.grid import GridOptions
from napari_mcm.core.heatmaps.config import SimilarityConfig
from napari_mcm.core.heatmaps.query_file import (
    ENDING,
    QueryFile,
    SlideIdentity,
    encoder_query,
    fingerprint_of,
    write_query,
)
from napari_mcm.core.heatmaps.ranges import Limits
from napari_mcm.core.mae.reconstruction_config import ReconstructConfig
from napari_mcm.core.mil.cohort import slide_key
from napari_mcm.core.mil.config import AttentionConfig
from napari_mcm.core.slides import ReadConfig
from napari_mcm.viewer.places import writable_base
from napari_mcm.viewer.query_maps import SLOTS
from napari_mcm.viewer.settings import preferences
from napari_mcm.viewer.slide_facts import SlideFacts

if TYPE_CHECKING:
    from napari_mcm.viewer.mae_looks import Asked
    from napari_mcm.viewer.mae_reconstruct import ReconstructDesk
    from napari_mcm.viewer.mil_attention import AttentionDesk
    from napari_mcm.viewer.mil_desk import MilDesk
    from napari_mcm.viewer.session import Session


@dataclass(frozen=True)
class Commands:
    """Several commands, one after the other."""

    each: tuple[Command, ...]

    @property
    def line(self) -> str:
        """A line for each."""
        return "\n".join(command.line for command in self.each)


def tissue_command(session: Session) -> Command:
    """Name the verb that finds the tissue of the shown slide, and lays its patches."""
    facts = _facts(session)
    config = GridOptions(
        slide=Path(facts.path),
        tissue_out=_beside(facts) / f"{facts.name}.found.geojson",
        read=ReadConfig(mpp_override=facts.mpp_override),
        grid=session.patches,
    )
    return Command("grid", config, "slide")


def query_commands(session: Session) -> Command | Commands:
    """Name the verb that asks the shown slide what its maps show.

    The query is written to a file first, which the command takes. Of several encoders
    each has its command, and so has their difference.

    Raises
    ------
    ValueError
        With one line, where there is no query, or it cannot be written down.
    """
    facts = _facts(session)
    _shown_slot(session)
    query = _keep_query(session, facts)
    maps, drawn = session.queries.maps(), session.queries.drawn
    files = {s: _file_of(session, s) for s in SLOTS if maps.get(s) is not None}
    asked: list[tuple[str, Path, Path | None]] = [
        (slot, file, None) for slot, file in files.items()
    ]
    if drawn.pair is not None and drawn.difference is not None:
        before, after = (files[slot] for slot in drawn.pair)
        asked.append(("difference", after, before))
    configs = [
        SimilarityConfig(
            features=features,
            before=before,
            query=query,
            out=_beside(facts) / f"{facts.name}.similarity.{slot}.png",
            slide=Path(facts.path),
            limits=_limits(session),
            read=ReadConfig(mpp_override=facts.mpp_override),
        )
        for slot, features, before in asked
    ]
    commands = tuple(Command("similarity", config, "features") for config in configs)
    return commands[0] if len(commands) == 1 else Commands(commands)


def others_commands(session: Session) -> Commands:
    """Name the verbs that ask the slides which were found what the map shows.

    Raises
    ------
    ValueError
        With one line, where none was found yet, or there is no query.
    """
    facts, found = _facts(session), session.elsewhere.found
    if not found:
        raise ValueError("Ask other slides first: the command names each that answered")
    _shown_slot(session)
    query, folder = _keep_query(session, facts), _beside(facts)
    configs = [
        SimilarityConfig(
            features=one.features,
            query=query,
            above=session.areas.threshold,
            out=folder / f"{one.name}.similarity.png",
        )
        for one in found
    ]
    return Commands(tuple(Command("similarity", c, "features") for c in configs))


def attention_command(desk: MilDesk, attention: AttentionDesk) -> Command:
    """Name the verb that predicts the shown slide and draws where a run looks.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    facts, run, shown = _facts(desk.session), desk.run, attention.shown
    if run is None:
        raise ValueError("Choose a trained run first")
    name = slide_key(facts.name)
    folders = [folder for folder in (desk.features, run.features) if folder]
    if not folders:
        raise ValueError("Choose the folder of features first")
    having = [f for f in folders if any(f.glob(f"{escape(name)}.*"))]
    chosen = None
    if shown is not None and shown.look.per_class:
        chosen = shown.look.classes[shown.number]
    config = AttentionConfig(
        run=run.path,
        slide=facts.path,
        features=[*having, *folders][0],
        out=_beside(facts) / f"{facts.name}.attention",
        class_name=chosen,
        scaling=attention.scaling,
        compute=preferences().compute,
        read=ReadConfig(mpp_override=facts.mpp_override),
    )
    return Command("mil attention", config, "run")


def reconstruct_command(
    run: Path | None, picture: Path | None, asked: Asked
) -> Command:
    """Name the verb that fills in a picture.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    if run is None:
        raise ValueError("No run is chosen")
    if picture is None:
        raise ValueError("No picture is chosen")
    out = writable_base(picture) / f"{picture.stem}.reconstruction.png"
    return Command(
        "mae reconstruct", _reconstruction((run, picture), asked, out), "paths"
    )


def place_command(session: Session, desk: ReconstructDesk) -> Command:
    """Name the verb that fills in the patch around a place of the shown slide.

    Raises
    ------
    ValueError
        With one line that names what is missing.
    """
    facts = _facts(session)
    if desk.folder is None:
        raise ValueError("No run is chosen")
    if desk.place is None:
        raise ValueError("Click on the slide first: the command names the place")
    out = _beside(facts) / f"{facts.name}.reconstruction.png"
    read = ReadConfig(mpp_override=facts.mpp_override)
    config = _reconstruction((desk.folder, Path(facts.path)), desk.asked, out)
    return Command(
        "mae reconstruct",
        config.model_copy(update={"at": (desk.place,), "read": read}),
        "paths",
    )


def _reconstruction(
    paths: tuple[Path, Path], asked: Asked, out: Path
) -> ReconstructConfig:
    return ReconstructConfig(
        paths=paths,
        mask_ratio=(asked.ratio,) if asked.ratio else (),
        paste=asked.paste,
        seed=asked.seed,
        out=out,
        compute=preferences().compute,
    )


def _facts(session: Session) -> SlideFacts:
    if (facts := session.facts) is None:
        raise ValueError("No slide is open")
    if facts.mpp is None:
        raise ValueError(f"The resolution of {facts.name} is not known: give it")
    return facts


def _beside(facts: SlideFacts) -> Path:
    return preferences().output_folder or writable_base(Path(facts.path))


def _limits(session: Session) -> Limits:
    """Name the range of colours that the maps really have."""
    limits, examples = session.queries.limits, session.queries.question.examples
    return "robust" if limits == "encoder" and examples.unlike else limits


def _file_of(session: Session, slot: str) -> Path:
    loaded = session.features(slot)
    assert loaded is not None
    return loaded.path


def _shown_slot(session: Session) -> str:
    if (shown := session.queries.shown_map()) is None:
        raise ValueError("There is no map yet: click on the slide")
    return shown[0]


def _keep_query(session: Session, facts: SlideFacts) -> Path:
    """Write the query to a file that no other one has, in the background."""
    made = _query_file(session)
    mark = hashlib.blake2b(made.model_dump_json().encode(), digest_size=3).hexdigest()
    path = _beside(facts) / f"{made.slide.name or facts.name}-{mark}{ENDING}"
    session.disk.submit(
        f"query {path}",
        lambda: write_query(path, made),
        lambda _: None,
        session.complain,
    )
    return path


def _query_file(session: Session) -> QueryFile:
    question = session.queries.question
    loaded = [one for slot in SLOTS if (one := session.features(slot)) is not None]
    labels = {fingerprint_of(one.index.features.encoder): one.label for one in loaded}
    if not question.directions:
        raise ValueError(
            "The features do not say which encoder made them: compute them here"
        )
    examples = question.examples
    return QueryFile(
        slide=SlideIdentity(name=question.name, fingerprint=question.slide),
        like=examples.like,
        unlike=examples.unlike,
        regions=examples.regions,
        pool=examples.pool,
        encoders=tuple(
            encoder_query(mark, labels.get(mark, ""), directions)
            for mark, directions in question.directions.items()
        ),
    )
