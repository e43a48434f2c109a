"""Classify tab: type classes, see the library sorted, put a few right by hand, and let the rest follow."""

from __future__ import annotations

from typing import Any

import gradio as gr

from clipkit.classify.collection import USUAL

from .. import html
from ..server.state import Page
from ..theme import piece
from .actions import Actions, Screen, Session
from .inputs import OWN, SETS_OF_TEMPLATES, Namer
from .sorter import Sorter

TEACH = (
    "Type your classes, separated by commas: cat, dog, landscape. Press Sort.",
    "Click a picture in the wrong column and choose the right one. Keys 1 to 9 do the same, 0 means none of these.",
    "Press Learn: the other pictures are sorted again by your corrections. Export a table, folders, or the classifier.",
)


def tab(page: Page, here: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    with gr.Row(elem_id="ck-classes-row"):
        words = gr.Textbox(
            label="Classes",
            placeholder="cat, dog, landscape",
            info="Separated by commas, or one per line. pets and imagenet are ready-made lists.",
            lines=1,
            max_lines=6,
            max_length=100_000,
            scale=5,
            min_width=260,
            elem_id="ck-classes",
        )
        templates = gr.Dropdown(
            [*SETS_OF_TEMPLATES, OWN],
            value="simple",
            label="Prompt templates",
            scale=1,
            min_width=130,
            elem_id="ck-templates",
        )
        library = gr.Dropdown(label="Library", visible=False, scale=1, min_width=130, elem_id="ck-sort-library")
        with gr.Column(scale=0, min_width=150):
            sort = gr.Button("Sort", variant="primary", elem_id="ck-sort")
            kinds = [".txt", ".csv", ".json", ".safetensors"]
            load = gr.UploadButton("Open a file", file_types=kinds, size="sm", elem_id="ck-load")
    own = gr.Textbox(
        label="Your templates, one per line", placeholder="a photo of a {}.", visible=False, lines=2, max_length=20_000
    )
    notice = piece(elem_id="ck-sorted-said")
    with gr.Column(visible=False, elem_id="ck-tools") as tools:
        with gr.Row(elem_id="ck-teach-row"):
            strict = gr.Slider(
                0,
                100,
                value=USUAL,
                step=1,
                label="Leave out uncertain pictures",
                scale=3,
                min_width=320,
                elem_id="ck-strict",
            )
            learn = gr.Button("Learn", variant="primary", scale=0, min_width=160, elem_id="ck-learn")
            forget = gr.Button("Clear labels", scale=0, min_width=150, elem_id="ck-forget")
        learned = piece(elem_id="ck-learned")
    counted = piece(elem_id="ck-sorted")
    sends = "window.clipkitClassify.columns(element, trigger, watch); // sends 'act'"
    board = piece(
        html.note("Sort your pictures", "Name the classes, and each picture gets one.", steps=TEACH),
        elem_id="ck-board",
        on_load=sends,
    )
    with gr.Accordion("Export", open=False, elem_id="ck-away"):
        with gr.Row():
            as_csv = gr.Button("Table of labels (CSV)", size="sm", elem_id="ck-labels-csv")
            as_head = gr.Button("Classifier (.safetensors)", size="sm", elem_id="ck-save-head")
        with gr.Row(visible=page.shelf.is_local):
            folder = gr.Textbox(
                label="Copy into class folders",
                placeholder="~/sorted",
                max_length=4096,
                scale=4,
                elem_id="ck-sort-into",
            )
            show = gr.Button("Preview", size="sm", scale=1, min_width=120, elem_id="ck-plan")
            copy = gr.Button("Copy now", variant="primary", size="sm", visible=False, scale=1, min_width=120)
        plan = piece(elem_id="ck-plan-shown")
    signal = gr.HTML(
        "",
        html_template="<i></i>",
        js_on_load="watch('value', () => window.clipkitClassify.signal(props.value));",
        visible="hidden",
    )
    session = gr.State(Session())
    screen = Screen(session, library, notice, counted, board, signal, strict, learned, plan, tools, copy)
    sorter = Sorter()
    Namer(page, sorter).attach()
    actions = Actions(page, screen, sorter)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 4}
    slow = {**private, "show_progress": "minimal", "show_progress_on": [board]}  # the model may have to be loaded
    words_in = [session, words, templates, own, library]
    templates.input(lambda chosen: gr.Textbox(visible=chosen == OWN), [templates], [own], **private)
    sort.click(actions.sort, words_in, screen.outputs, **slow)
    words.submit(actions.sort, words_in, screen.outputs, **slow)
    load.upload(actions.load, [session, load, templates, own, library], screen.outputs, **slow)
    here.select(actions.libraries, [library], [library], **private)
    board.act(actions.act, [session], [signal], **private, trigger_mode="multiple")
    strict.release(actions.set_aside, [session, strict], screen.outputs, **private)
    learn.click(actions.learn, [session], screen.outputs, **slow)
    forget.click(actions.forget, [session], screen.outputs, **private)
    as_csv.click(actions.csv, [session], screen.outputs, **private)
    as_head.click(actions.save, [session], screen.outputs, **private)
    show.click(actions.plan, [session, folder], screen.outputs, **private)
    copy.click(actions.copy, [session], screen.outputs, **private)
