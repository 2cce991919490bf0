"""Wordings of problems: 12 per family, each with a stable id for bootstraps by template.

Knows nothing of splits, answers or thinking.
"""

from dataclasses import dataclass

from testbed.problems import Family, Problem


@dataclass(frozen=True)
class Template:
    """opening + items joined by `joiner` + closing.

    A sum's item is `product` over {a} and {b}, in this order, so that thinking only has to read
    the numbers from left to right; a chain's items are `words[op]` over {n}, and its
    opening holds {n}, the starting number.
    """

    id: str
    opening: str
    closing: str
    joiner: str
    product: str = ""
    words: tuple[str, str] = ("", "")

    @property
    def family(self) -> Family:
        """The kind of problem that this wording can hold."""
        return "sum" if self.product else "chain"

    def render(self, problem: Problem) -> str:
        """The question text."""
        if problem.family == "sum":
            items = [self.product.format(a=a, b=b) for a, b in problem.pairs]
            return self.opening + self.joiner.join(items) + self.closing
        words = dict(zip("+*", self.words, strict=True))
        pairs = zip(problem.ops, problem.numbers[1:], strict=True)
        items = [words[op].format(n=n) for op, n in pairs]
        opening = self.opening.format(n=problem.numbers[0])
        return opening + self.joiner.join(items) + self.closing


SUMS = (
    Template("sum_symbols", "What is ", "?", " + ", "{a} * {b}"),
    Template("sum_compute", "Compute ", ".", " + ", "({a} * {b})"),
    Template("sum_times", "Add up ", ".", " and ", "{a} times {b}"),
    Template("sum_total", "Find the total of ", ".", ", ", "{a} times {b}"),
    Template("sum_boxes", "There are ", ". How many pens in all?", ", ", "{a} boxes of {b} pens"),
    Template("sum_shop", "I buy ", ". What do I pay?", ", ", "{a} books at {b} coins each"),
    Template("sum_rows", "A hall has ", ". How many seats?", " and ", "{a} rows of {b} seats"),
    Template(
        "sum_walk", "Ann walks ", ". How far is that?", ", then ", "{a} days at {b} miles a day"
    ),
    Template("sum_farm", "A farm has ", ". Count the eggs.", ", ", "{a} nests with {b} eggs"),
    Template(
        "sum_work", "Tom earns ", ". How much is it?", ", then ", "{a} coins an hour for {b} hours"
    ),
    Template("sum_bare", "", " =", "+", "{a}*{b}"),
    Template("sum_list", "Multiply each pair and add: ", ".", "; ", "{a} and {b}"),
)
CHAINS = (
    Template(
        "chain_start",
        "Start with {n}. ",
        "",
        " ",
        words=("Add {n}.", "Multiply by {n}."),
    ),
    Template(
        "chain_take",
        "Take {n}, ",
        ". What is the result?",
        ", ",
        words=("add {n}", "multiply by {n}"),
    ),
    Template(
        "chain_then",
        "What is {n}, then ",
        "?",
        ", then ",
        words=("plus {n}", "times {n}"),
    ),
    Template("chain_left", "From left to right: {n}", " =", "", words=(" + {n}", " * {n}")),
    Template("chain_arrow", "{n}", " -> ?", "", words=(" -> +{n}", " -> *{n}")),
    Template(
        "chain_think",
        "Think of {n}. Now ",
        ". Where are you?",
        ", now ",
        words=("add {n}", "go times {n}"),
    ),
    Template(
        "chain_jar",
        "A jar holds {n} beans. ",
        " How many now?",
        " ",
        words=("{n} go in.", "They grow {n} fold."),
    ),
    Template(
        "chain_score",
        "The score is {n}. ",
        " What is the score?",
        " ",
        words=("Win {n}.", "It goes up {n} times."),
    ),
    Template(
        "chain_bank",
        "Sam has {n} coins. ",
        " How many coins has Sam?",
        " ",
        words=("He gets {n}.", "They grow {n} fold."),
    ),
    Template(
        "chain_bus",
        "{n} people. ",
        " How many people?",
        " ",
        words=("{n} come.", "Now {n} times as many."),
    ),
    Template(
        "chain_steps",
        "Begin at {n}: ",
        ". End at?",
        "; ",
        words=("up {n}", "times {n}"),
    ),
    Template(
        "chain_work",
        "Work out: {n}",
        ". Step by step.",
        ",",
        words=(" add {n}", " multiply {n}"),
    ),
)
TEMPLATES: dict[str, Template] = {template.id: template for template in (*SUMS, *CHAINS)}
