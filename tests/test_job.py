from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from mas_edge.federation.methods import with_method
from mas_edge.job import Data, Federation, Job, Task, check, load_job, parse_job
from mas_edge.protocol.errors import JobError

WATCH = Path(__file__).parents[1] / "models" / "watch.toml"
GOOD = """\
name = "trial"
seed = 3

[data]
input_shape = [6, 64]

[federation]
rounds = 10
merge_rounds = 4
groups = 2
devices_per_round = 3
local_epochs = 1
batch_size = 16
min_devices = 1
min_reports = 1
deadline_s = 60.0

[optimizer]
learning_rate = 0.1
momentum = 0.9
weight_decay = 0.0
power = 0.9
clip_norm = 0.0
proximal_mu = 0.0

[affinity]
period = 5

[card]
licence = "CC0"
units = { speed = "m/s" }

[[tasks]]
name = "gait"
kind = "class"
classes = 3

[[tasks]]
name = "speed"
kind = "value"
shape = [2]
"""

# name of the fault: (what stands in the file, what stands there instead, what the message says)
FAULTS: dict[str, tuple[str, str, list[str]]] = {
    "not TOML": ("[data]", "[data", ["not valid TOML"]),
    "unknown key": ("seed = 3", "sed = 3", ["unknown key 'sed'", "seed"]),
    "unknown key of a section": ("rounds = 10", "rounds = 10\nepochs = 2", ["'epochs'", "federation", "local_epochs"]),
    "unknown key of a task": ("classes = 3", "klasses = 3", ["'klasses'", "tasks[0]", "classes"]),
    "unknown key of the card": ('licence = "CC0"', 'license = "CC0"', ["'license'", "card", "licence"]),
    "unit of no task": ("{ speed", "{ sped", ["card.units is ['sped']", "gait, speed"]),
    "missing key": ('name = "trial"\n', "", ["missing key 'name'"]),
    "missing section": ("[data]\ninput_shape = [6, 64]\n", "", ["missing key 'data'"]),
    "missing kind": ('kind = "class"\n', "", ["missing key 'kind'", "tasks[0]"]),
    "text for a number": ("rounds = 10", 'rounds = "ten"', ["federation.rounds", "int", "'ten'"]),
    "half a round": ("rounds = 10", "rounds = 2.5", ["federation.rounds", "int", "2.5"]),
    "a list of texts as shape": ("[6, 64]", '["6"]', ["data.input_shape", "int"]),
    "unknown kind": ('"class"', '"klass"', ["tasks[0].kind", "klass"]),
    "unknown schedule": ("power = 0.9", 'schedule = "cosine"', ["optimizer.schedule", "cosine"]),
    "name with a slash": ('"trial"', '"a/b"', ["name is 'a/b'", "letters, digits"]),
    "name with a wildcard": ('name = "trial"', 'name = "trial"\nfleet = "+"', ["fleet is '+'"]),
    "negative seed": ("seed = 3", "seed = -1", ["seed is -1", "0 or more"]),
    "no input shape": ("[6, 64]", "[]", ["data.input_shape is []", "1 to 4 sizes"]),
    "input shape with a zero": ("[6, 64]", "[6, 0]", ["data.input_shape is [6, 0]"]),
    "too many sizes": ("[6, 64]", "[1, 2, 3, 4, 5]", ["data.input_shape", "1 to 4 sizes"]),
    "encoder that is no function": (
        "[affinity]", '[network]\nencoder = "mine"\n[affinity]', ["network.encoder is 'mine'", "package:function"],
    ),
    "the same task twice": ('"speed"', '"gait"', ["tasks is ['gait', 'gait']", "name of its own"]),
    "no rounds": ("rounds = 10", "rounds = 0", ["federation.rounds is 0", "at least 1"]),
    "no merge rounds": ("merge_rounds = 4", "merge_rounds = 0", ["federation.merge_rounds is 0", "1 to rounds (10)"]),
    "more merge rounds than rounds": (
        "merge_rounds = 4", "merge_rounds = 11", ["federation.merge_rounds is 11", "1 to rounds (10)"],
    ),
    "more groups than tasks": ("groups = 2", "groups = 3", ["federation.groups is 3", "1 to the number of tasks (2)"]),
    "no groups": ("groups = 2", "groups = 0", ["federation.groups is 0"]),
    "no devices": ("devices_per_round = 3", "devices_per_round = 0", ["federation.devices_per_round is 0"]),
    "no epochs": ("local_epochs = 1", "local_epochs = 0", ["federation.local_epochs is 0", "1 to 1000"]),
    "huge batch": ("batch_size = 16", "batch_size = 5000", ["federation.batch_size is 5000", "1 to 4096"]),
    "no fleet at all": ("min_devices = 1", "min_devices = 0", ["federation.min_devices is 0"]),
    "more reports than devices": (
        "min_reports = 1", "min_reports = 4", ["federation.min_reports is 4", "devices_per_round (3)"],
    ),
    "no time": ("deadline_s = 60.0", "deadline_s = 0", ["federation.deadline_s is 0", "seconds"]),
    "endless deadline": ("deadline_s = 60.0", "deadline_s = inf", ["federation.deadline_s is inf"]),
    "no learning": ("learning_rate = 0.1", "learning_rate = 0.0", ["optimizer.learning_rate is 0.0", "more than 0"]),
    "a learning rate that is no number": (
        "learning_rate = 0.1", "learning_rate = nan", ["optimizer.learning_rate is nan"],
    ),
    "momentum of one": ("momentum = 0.9", "momentum = 1.0", ["optimizer.momentum is 1.0", "not including 1"]),
    "negative weight decay": ("weight_decay = 0.0", "weight_decay = -0.1", ["optimizer.weight_decay is -0.1"]),
    "negative power": ("power = 0.9", "power = -1.0", ["optimizer.power is -1.0"]),
    "endless clipping": ("clip_norm = 0.0", "clip_norm = inf", ["optimizer.clip_norm is inf", "0 (off) or more"]),
    "negative pull": ("proximal_mu = 0.0", "proximal_mu = -1.0", ["optimizer.proximal_mu is -1.0"]),
    "never measuring the affinity": ("period = 5", "period = 0", ["affinity.period is 0", "at least 1"]),
    "task with a dot": ('"gait"', '"my.gait"', ["tasks[my.gait].name", "letters, digits"]),
    "task called encoder": ('"gait"', '"encoder"', ["tasks[encoder].name", "not encoder, x"]),
    "class with a shape": ("classes = 3", "classes = 3\nshape = [2]", ["tasks[gait].shape is [2]", "no shape"]),
    "dense class without places": ('"class"', '"dense_class"', ["tasks[gait].shape is []", "places of a sample"]),
    "direction without a size": ('"value"\nshape = [2]', '"direction"', ["tasks[speed].shape is []", "vector's size"]),
    "one class": ("classes = 3", "classes = 1", ["tasks[gait].classes is 1", "2 or more"]),
    "classes of a value": (
        "shape = [2]", "shape = [2]\nclasses = 3", ["tasks[speed].classes is 3", "absent otherwise"],
    ),
    "loss that is no function": (
        "classes = 3", 'classes = 3\nloss = "my:"', ["tasks[gait].loss is 'my:'", "package:function"],
    ),
    "metric that is no function": ("classes = 3", 'classes = 3\nmetric = ":f"', ["tasks[gait].metric is ':f'"]),
    "head that is no function": ("classes = 3", 'classes = 3\nhead = "mine"', ["tasks[gait].head is 'mine'"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_job_file_is_refused_with_the_key_the_value_and_what_is_allowed(fault: str) -> None:
    before, after, said = FAULTS[fault]
    assert before in GOOD
    with pytest.raises(JobError) as caught:
        parse_job(GOOD.replace(before, after, 1), "trial.toml")
    message = str(caught.value)
    assert message.startswith("trial.toml: ")
    assert "\n" not in message
    assert all(words in message for words in said), message


def test_a_job_needs_a_task() -> None:
    with pytest.raises(JobError, match=r"tasks is .*at least one task"):
        parse_job("tasks = []\n" + GOOD.partition("[[tasks]]")[0])


def test_a_good_job_file_holds_what_it_says() -> None:
    job = parse_job(GOOD)
    assert (job.name, job.seed, job.federation.rounds, job.federation.merge_rounds) == ("trial", 3, 10, 4)
    assert [task.name for task in job.tasks] == ["gait", "speed"]
    assert job.task("speed").shape == [2]


def test_what_is_left_out_has_the_papers_values() -> None:
    job = parse_job("name = 'a'\n[data]\ninput_shape = [2]\n[federation]\nrounds = 9\nmerge_rounds = 3\n"
                    "[[tasks]]\nname = 'a'\nkind = 'value'\n[[tasks]]\nname = 'b'\nkind = 'value'\n")  # fmt: skip
    assert (job.optimizer.momentum, job.optimizer.weight_decay, job.optimizer.power) == (0.9, 1e-4, 0.9)
    assert job.optimizer.schedule == "polynomial"
    assert job.optimizer.scale_encoder_gradient
    assert job.affinity.period == 5


@pytest.mark.parametrize(
    ("task", "loss", "metric", "dtype"),
    [
        (Task(name="t", kind="class", classes=2), "cross_entropy", "accuracy", "int64"),
        (Task(name="t", kind="dense_class", classes=2, shape=[4]), "cross_entropy", "accuracy", "int64"),
        (Task(name="t", kind="value"), "l1", "mean_absolute_error", "float32"),
        (Task(name="t", kind="direction", shape=[3]), "cosine", "angle_degrees", "float32"),
        (Task(name="t", kind="value", loss="my.a:loss", metric="my.b:miss"), "my.a:loss", "my.b:miss", "float32"),
    ],
)  # fmt: skip
def test_the_kind_gives_loss_metric_and_dtype_unless_named(task: Task, loss: str, metric: str, dtype: str) -> None:
    assert (task.loss_name, task.metric_name, task.target_dtype) == (loss, metric, dtype)


def test_a_job_built_in_python_is_held_to_the_same_rules() -> None:
    job = Job(
        name="trial", data=Data(input_shape=[6, 64]), tasks=[Task(name="speed", kind="value")],
        federation=Federation(rounds=2, merge_rounds=1, groups=1),
    )  # fmt: skip
    assert check(job) is job
    with pytest.raises(JobError, match=r"job: federation\.groups is 2; allowed: 'auto', or 1 to the number of tasks"):
        check(msgspec.structs.replace(job, federation=Federation(rounds=2, merge_rounds=1, groups=2)))


# method: the largest number of tasks that it takes, and what is said of one more
MOST_TASKS = {
    "mas-2": (64, "tasks is 65; allowed: at most 64"),
    "tag-2": (14, "tasks is 15; allowed: at most 14 by tag: overlapping groups are searched exactly"),
    "hoa-2": (14, "tasks is 15; allowed: at most 14 by hoa"),
    "every-2": (12, "tasks is 13; allowed: at most 12 with method.split every"),
}


@pytest.mark.parametrize("method", MOST_TASKS)
def test_each_method_takes_as_many_tasks_as_its_search_can(method: str) -> None:
    most, said = MOST_TASKS[method]

    def with_tasks(count: int) -> Job:
        tasks = [Task(name=f"t{i}", kind="value") for i in range(count)]
        federation = Federation(rounds=4, merge_rounds=1)
        return Job(name="many", data=Data(input_shape=[6]), tasks=tasks, federation=federation)

    assert with_method(with_tasks(most), method).federation.groups == 2
    with pytest.raises(JobError, match=re.escape(f"method {method}: {said}")):
        with_method(with_tasks(most + 1), method)


# name of the fault: (section, key and value, what the message says)
METHOD_FAULTS: dict[str, tuple[str, str, str]] = {
    "unknown method": ("method", 'name = "fedavg"', "method.name"),
    "a control of another method": ("method", 'name = "tag"\nsplit = "worst"', "method.split is 'worst'; allowed: aff"),
    "scratch without MAS": ("method", 'name = "all-in-one"\nstart = "scratch"', "method.start is 'scratch'"),
    "regrouping without a choice": (
        "method", 'split = "random"\nregroup_rounds = 2', "method.regroup_rounds is 2; allowed: 0 unless",
    ),
    "gradnorm that overshoots": ("method", "gradnorm_rate = 0.9", "method.gradnorm_rate is 0.9; allowed: more than 0"),
    "gradnorm to the other side": ("method", "gradnorm_alpha = -1.0", "method.gradnorm_alpha is -1.0"),
    "negative limit": ("limits", "parameters = -1", "limits.parameters is -1; allowed: 0 (no limit) or more"),
    "endless limit": ("limits", "step_seconds = inf", "limits.step_seconds is inf"),
    "unknown limit": ("limits", "joules = 1", "unknown key 'joules' in limits; allowed there: parameters, multiply_"),
}  # fmt: skip


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_a_wrong_method_or_limit_is_refused(fault: str) -> None:
    section, lines, said = METHOD_FAULTS[fault]
    with pytest.raises(JobError, match=re.escape(said)):
        parse_job(GOOD.replace("[affinity]", f"[{section}]\n{lines}\n\n[affinity]"))


def test_auto_is_allowed_where_something_is_decided_by_affinity() -> None:
    text = GOOD.replace("groups = 2", 'groups = "auto"').replace("merge_rounds = 4", 'merge_rounds = "auto"')
    job = parse_job(text)
    assert (job.federation.groups, job.federation.most_merge_rounds) == ("auto", 5)
    with pytest.raises(JobError, match=r"federation\.groups is 'auto'; allowed: a number"):
        parse_job(text.replace("[affinity]", '[method]\nname = "hoa"\n\n[affinity]'))


def test_more_devices_than_are_asked_cannot_be_a_quorum() -> None:
    with pytest.raises(JobError, match=r"affinity\.quorum is 4; allowed: 1 to devices_per_round \(3\)"):
        parse_job(GOOD.replace("period = 5", "period = 5\nquorum = 4"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_job_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=r"job\.toml: cannot be read"):
        load_job(path)


def test_the_watch_job_is_the_demo_of_ten_devices_in_two_groups() -> None:
    job = load_job(WATCH)
    assert (job.name, job.fleet) == ("watch", "watch")
    assert (job.federation.groups, job.federation.min_devices, job.federation.min_reports) == (2, 10, 3)
    assert len(job.tasks) >= 5
