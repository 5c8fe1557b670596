"""What `refund demo` is told, and the world that its nights are drawn from: shares, weekdays, faults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from refund.errors import SettingsError

PREFIX = "demo/"  # never below incoming/: no night lists it
SHIFTED_CATEGORY = "kitchen_dining"
SHIFT_RATIO = 0.10  # of the photos of one night: ten points more of this category
LATE_DAYS = 2  # as the nightly run's default
THRESHOLD = 0.5
_MAX_NIGHTS, _MAX_PHOTOS = 366, 100_000

# Shares of returned goods, made up but of the order a shop of clothing and household goods would see.
SHARES = {
    "clothing": 0.21,
    "electronics": 0.13,
    "shoes": 0.12,
    "home_garden": 0.09,
    "bags_luggage": 0.07,
    "toys_games": 0.06,
    "sporting_goods": 0.06,
    "furniture": 0.04,
    "kitchen_dining": 0.04,
    "jewellery_watches": 0.03,
    "health_beauty": 0.03,
    "not_a_product": 0.03,
    "office_supplies": 0.02,
    "vehicles_parts": 0.02,
    "hardware_tools": 0.015,
    "baby_toddler": 0.015,
    "cameras_optics": 0.01,
    "media": 0.01,
}
RARE_SHARE = 0.002  # of every other category of the taxonomy
WEEKDAY_VOLUMES = (1.15, 1.08, 1.0, 1.0, 1.02, 0.92, 0.83)  # Monday first; their mean is 1
WEEKEND_TILT = {"clothing": 1.15, "shoes": 1.15, "toys_games": 1.2, "office_supplies": 0.6, "business_industrial": 0.5}
VOLUME_SPREAD = 0.05  # standard deviation of the night's log volume
CONCENTRATION = 4_000.0  # of the Dirichlet that the night's shares come from: how little nights differ beyond chance
REJECTED_NIGHT = (30.0, 1_970.0)  # Beta that the night's rate of rejections comes from: 1.5 % on average
REJECTION_REASONS = {
    "truncated": 0.3,
    "not_an_image": 0.25,
    "too_small": 0.2,
    "corrupt": 0.1,
    "empty_file": 0.1,
    "unsupported_format": 0.05,
}
CLASSES = {  # of the network, those that the made-up photos of a category show; where none is named, its first three
    "clothing": ("jersey", "cardigan", "jean", "sweatshirt", "trench_coat", "miniskirt"),
    "electronics": ("laptop", "cellular_telephone", "loudspeaker", "mouse", "joystick"),
    "shoes": ("running_shoe", "sandal", "Loafer"),
    "home_garden": ("table_lamp", "pillow", "vase", "quilt"),
    "sporting_goods": ("basketball", "tennis_ball", "dumbbell"),
    "furniture": ("folding_chair", "bookcase", "rocking_chair"),
    "kitchen_dining": ("coffee_mug", "espresso_maker", "teapot"),
    "toys_games": ("teddy", "jigsaw_puzzle"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """Which nights are made up. The same plan gives the same nights, and a night does not depend on how many there are.

    Raises:
        SettingsError: a value is out of range.
    """

    nights: int
    photos: int  # of a night on average; weekends have fewer
    ending: date  # run date of the last night
    seed: int

    def __post_init__(self) -> None:
        for name, low, high in (("nights", 1, _MAX_NIGHTS), ("photos", 10, _MAX_PHOTOS), ("seed", 0, 2**31)):
            value = getattr(self, name)
            if not low <= value <= high:
                msg = f"--{name} must lie in {low}..{high}, got {value}"
                raise SettingsError(msg)

    @property
    def dates(self) -> tuple[date, ...]:
        """The run dates, oldest first."""
        return tuple(self.ending - timedelta(days=back) for back in range(self.nights - 1, -1, -1))

    @property
    def shifted(self) -> date | None:
        """The night whose mix of goods really differs: the last but two, or None where there are fewer than three."""
        return self.dates[-3] if self.nights >= 3 else None

    @property
    def command(self) -> str:
        """What one types to make the same nights again."""
        return f"refund demo --nights {self.nights} --photos {self.photos} --ending {self.ending} --seed {self.seed}"

    @property
    def note(self) -> str:
        """What the row and the report of every night say; other notes are another demo."""
        return f"made up, not real: {self.command}"


def run_id(day: date) -> str:
    """The run of a made-up night; Airflow names none of its own so."""
    return f"demo__{day.isoformat()}"


def start_of(day: date) -> datetime:
    """When the run of this run date begins: as the schedule does, at two in the next night."""
    return datetime.combine(day + timedelta(days=1), time(2), tzinfo=UTC)
