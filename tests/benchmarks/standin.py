"""A process that misbehaves as a rival might; its first argument names how."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main(manner: str) -> None:
    config = json.loads(sys.stdin.readline())
    if manner == "dies":
        sys.exit("no room for the network")
    if manner == "left_out":
        say(json.dumps({"left_out": "it would not start"}))
        return
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    seen = json.dumps([sys.argv, dict(os.environ)])
    told = {"child": str(child.pid), "secret shown": str(config["secret_key"] in seen)}
    say(json.dumps({"versions": {**told, "variables": ",".join(sorted(os.environ))}}))
    for line in sys.stdin:
        keys = json.loads(line)["keys"]
        right = {"photos": len(keys), "classified": 1, "wall_s": 2.0, "cpu_s": 3.0, "predictions": [7, None]}
        answers = {
            "answers": json.dumps(right),
            "babbles": "Epoch 1/1",
            "lists": "[1]",
            "miscounts": json.dumps({**right, "photos": 9}),
            "forgets": json.dumps({**right, "predictions": None}),
        }
        if manner in answers:
            say(answers[manner])
        if manner == "dies later":
            os._exit(3)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
