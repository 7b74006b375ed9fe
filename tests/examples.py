"""A catalogue of histories that one can see, each with what happened in it.

Each drawing has one line a component and role and one character a snapshot: `.` nothing, `1` to `9` tenths of full
strength, `#` full strength, `?` not measured.  Lines that start with `|` are remarks.  Every method runs against all of
them; a new kind of trouble gets a new drawing.
"""

from dataclasses import dataclass

from tracking.datasets.synthetic import history_from_drawing
from tracking.history.history import History

Told = tuple[str, str, str, str]  # event, components before, components after, role after (before, for a death)
WIRING = {"induction": ["previous-token"]}


@dataclass(frozen=True)
class Example:
    """A drawing and its events: (event, before, after, role, snapshot after it)."""

    name: str
    drawing: str
    events: tuple[tuple[str, str, str, str, int], ...]
    noise: float = 0.02

    def history(self, *, n_folds: int = 8, wiring: bool = False, seed: int = 0) -> History:
        edges = WIRING if wiring else None
        return history_from_drawing(
            self.drawing, noise=self.noise, wiring=edges, n_folds=n_folds, seed=seed, name=self.name
        )


EXAMPLES = (
    Example(
        "birth",
        """
        a0.h0 previous-token ....3#######################
        a1.h1 induction      ............................
        """,
        (("birth", "", "a0.h0", "previous-token", 5),),
    ),
    Example(
        "death",
        """
        a0.h0 previous-token ###############.............
        a1.h1 induction      ............................
        """,
        (("death", "a0.h0", "", "previous-token", 15),),
    ),
    Example(
        "there all along",
        """
        a0.h0 previous-token ############################
        a1.h1 induction      ............................
        """,
        (),
    ),
    Example(
        "sharp hand-off",
        """
        a1.h0 induction      ##############..............
        a1.h1 induction      ..............##############
        """,
        (("hand-off", "a1.h0", "a1.h1", "induction", 14),),
    ),
    Example(
        "hand-off with a gap",
        """
        a1.h0 induction      ##############..............
        a1.h1 induction      ...............#############
        """,
        (("hand-off", "a1.h0", "a1.h1", "induction", 15),),
    ),
    Example(
        "hand-off with an overlap",
        """
        a1.h0 induction      ##############986...........
        a1.h1 induction      .............689############
        """,
        (("hand-off", "a1.h0", "a1.h1", "induction", 15),),
    ),
    Example(
        "swap",
        """
        a0.h0 previous-token #############...............
        a0.h1 previous-token .............###############
        a0.h1 duplicate-token #############...............
        a0.h0 duplicate-token .............###############
        """,
        (
            ("hand-off", "a0.h0", "a0.h1", "previous-token", 13),
            ("hand-off", "a0.h1", "a0.h0", "duplicate-token", 13),
        ),
    ),
    Example(
        "swap with an idle head",
        """
        a0.h0 previous-token ############################
        a1.h0 induction      #############...............
        a1.h3 induction      .............###############
        """,
        (("hand-off", "a1.h0", "a1.h3", "induction", 13),),
    ),
    Example(
        "switch",
        """
        a1.h0 previous-token ##########..................
        a1.h0 induction      ..........##################
        """,
        (("switch", "a1.h0", "a1.h0", "induction", 10),),
    ),
    Example(
        "a second carrier joins and stays",
        """
        a1.h0 induction      ############################
        a1.h1 induction      ..............##############
        """,
        (("birth", "", "a1.h1", "induction", 14),),
    ),
    Example(
        "one of two carriers leaves",
        """
        a1.h0 induction      ############################
        a1.h1 induction      ##############..............
        """,
        (("death", "a1.h1", "", "induction", 14),),
    ),
    Example(
        "two carriers take turns",
        """
        |                    both carry it all the time; the lead passes
        a1.h0 induction      ##############66666666666666
        a1.h1 induction      66666666666666##############
        """,
        (("lead change", "a1.h0", "a1.h1", "induction", 14),),
    ),
    Example(
        "missed detections",
        """
        |                         not measured   below for two snapshots
        a1.h0 induction      ######??########..#######?##
        """,
        (),
    ),
    Example(
        "perhaps ended, as it is silent at the end",
        """
        a1.h0 induction      ##########################..
        """,
        (("death", "a1.h0", "", "induction", 26),),
    ),
    Example(
        "slow drift",
        """
        a1.h0 induction      #######999999988888887777777
        """,
        (),
    ),
    Example(
        "only noise",
        """
        a0.h0 previous-token ............................
        a1.h0 induction      ............................
        """,
        (),
        noise=0.05,
    ),
    Example(
        "noise about the threshold",
        """
        |                    full strength is .8 and the threshold .3: four tenths hover just above it
        a1.h0 induction      4444444444444444444444444444
        """,
        (),
        noise=0.03,
    ),
)
BY_NAME = {example.name: example for example in EXAMPLES}
