"""What a night costs on this machine, beside its own floor and what one would write without us: ``make bench``."""
