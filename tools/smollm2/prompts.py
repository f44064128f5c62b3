"""The 20 prompts of the comparison, 5 to about 600 tokens."""

from __future__ import annotations

PASSAGE = """\
The lighthouse at the end of the northern pier had not been used for eleven years when Marta bought it. \
The harbour office asked for very little money, because the roof leaked and the stairs were held \
together by rust, but they asked for three signatures and a promise that she would not paint it green. \
She signed, and on the first Monday in March she carried a bed, a stove and two boxes of books along the \
stones, one after the other, while the fishermen watched from the wall and said nothing.

The work took longer than she had planned. In the first month she cleaned the lamp room, where gulls had \
nested, and found under the straw a brass plate with the name of the company that had made the lens. In \
the second month she replaced forty-two steps. A carpenter named Olaf came every Thursday with planks on \
his back; he did not talk much either, but he hummed, and by the end of April she knew all of his songs. \
In May the rain stopped and the walls began to dry. She wrote a list of everything that was still broken \
and pinned it next to the door:

1. the north window, which does not close
2. the pump
3. the lower hinge of the door
4. the clock, which runs backwards when the wind comes from the sea
5. the radio

It was the radio that changed the summer. Olaf said that it could not be repaired, so she took it apart \
on the kitchen table and drew every wire on a sheet of paper before she cut it. There were two valves, a \
coil, and a condenser that had burst. She ordered the parts from a shop in the city, paid 18.50 for them \
and waited nine days. When she turned the switch on the evening of the 21st of June, there was a hum, \
then a voice that read numbers in a language she did not know, and then, quite clearly, a woman who \
asked whether anybody was still there.

Marta looked at the clock. It was running backwards. She pressed the key and said her name, the name of \
the pier and the height of the tower above the water, as the book told her to. For a while there was \
only the sea. Then the woman answered. She said that she was calling from another lighthouse, two \
hundred kilometres to the north, that her name was Ingrid, and that she had called every evening since \
the winter of the great storm, when the light at the end of the northern pier went out and the ships \
began to take the longer way around the islands. Nobody had ever answered. She wanted to know what had \
happened to the keeper, an old man who used to play chess with her over the radio, one move each night, \
and who had been about to lose his queen.

"""


def chat(question: str) -> str:
    """A question in the model's chat format, without its system message."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def beginning(words: int) -> str:
    """The passage's first words, spaces and line breaks as they are."""
    end = 0
    for _ in range(words):
        while PASSAGE[end].isspace():
            end += 1
        while not PASSAGE[end].isspace():
            end += 1
    return PASSAGE[:end]


QUESTIONS = {
    "capital": "What is the capital of France?",
    "list": "List three animals that can fly.",
    "arithmetic": "A box holds 12 eggs. How many eggs are in 5 boxes? Explain step by step.",
    "code": "Write a Python function that returns the sum of the even numbers in a list.",
    "poem": "Write a short poem about the sea in winter.",
    "unicode": "Translate to French, with all accents: The summer has been over since the café closed. 😀",
}

PROMPTS: dict[str, str] = {
    "five": "The weather today is very",
    **{f"passage_{words}": beginning(words) for words in (9, 20, 40, 70, 100, 140, 180, 230, 280, 360, 420)},
    **{name: chat(question) for name, question in QUESTIONS.items()},
    "summary": chat("Summarise this story in two sentences.\n\n" + beginning(300)),
    "question": chat(PASSAGE + "Who is Ingrid, and how did Marta reach her?"),
}
