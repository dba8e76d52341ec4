"""What a node selector selects by itself, in the ways that the recorded questions do not ask."""

from __future__ import annotations

from typing import Any

import pytest


def selector(scene: Any, **properties: Any) -> Any:
    import slicer

    made = slicer.qMRMLNodeComboBox()
    made.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    for name, value in properties.items():
        setattr(made, name, value)
    made.setMRMLScene(scene)
    return made


def add(scene: Any, name: str, class_name: str = "vtkMRMLScalarVolumeNode") -> Any:
    return scene.AddNewNodeByClass(class_name, name)


def changes(made: Any) -> list[str | None]:
    heard: list[str | None] = []
    made.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node and node.GetName()))
    return heard


def test_without_rows_for_actions_the_first_node_becomes_the_current_one(scene: Any) -> None:
    made = selector(scene, addEnabled=False, removeEnabled=False)
    heard = changes(made)
    add(scene, "first")
    add(scene, "second")
    assert made.currentNode().GetName() == "first" and heard == ["first"]


def test_a_row_for_none_stays_the_current_one(scene: Any) -> None:
    made = selector(scene, noneEnabled=True, addEnabled=False, removeEnabled=False)
    add(scene, "first")
    assert made.currentNode() is None


def test_the_removal_of_the_last_node_is_told(scene: Any) -> None:
    made = selector(scene)
    node = add(scene, "only")
    made.setCurrentNode(node)
    heard = changes(made)
    scene.RemoveNode(node)
    assert heard == [None] and made.currentNodeID == ""


def test_the_removal_of_another_node_leaves_the_current_one(scene: Any) -> None:
    made = selector(scene)
    other = add(scene, "other")
    made.setCurrentNode(add(scene, "kept"))
    heard = changes(made)
    scene.RemoveNode(other)
    assert set(heard) <= {"kept"} and made.currentNode().GetName() == "kept"


def test_a_change_between_nodes_of_the_same_name_is_told(scene: Any) -> None:
    made = selector(scene)
    twins = [add(scene, "twin"), add(scene, "twin")]
    made.setCurrentNode(twins[0])
    heard = changes(made)
    made.setCurrentNode(twins[1])
    assert heard == ["twin"] and made.currentNode() is twins[1]


def test_a_new_name_is_shown_and_told_at_once(scene: Any) -> None:
    made = selector(scene)
    node = add(scene, "before")
    made.setCurrentNode(node)
    heard = changes(made)
    node.SetName("after")
    assert heard == ["after"]
    assert made.comboBox().currentText == "after"


def test_a_node_chosen_before_there_is_a_scene_is_the_current_one_afterwards(scene: Any) -> None:
    import slicer

    node = add(scene, "wanted")
    made = slicer.qMRMLNodeComboBox()
    made.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    made.setCurrentNode(node)
    assert made.currentNode() is None
    made.setMRMLScene(scene)
    assert made.currentNode() is node


@pytest.mark.parametrize(("shown", "count"), [(True, 2), (False, 1)])
def test_nodes_of_derived_types_are_offered_unless_they_are_to_be_left_out(scene: Any, shown: bool, count: int) -> None:
    made = selector(scene, showChildNodeTypes=shown)
    add(scene, "volume")
    add(scene, "labels", "vtkMRMLLabelMapVolumeNode")
    assert made.nodeCount() == count


def test_only_nodes_with_the_asked_attribute_are_offered(scene: Any) -> None:
    made = selector(scene)
    made.addAttribute("vtkMRMLScalarVolumeNode", "Kind", "score")
    add(scene, "plain")
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetAttribute("Kind", "score")
    scene.AddNode(node)
    assert [offered.GetID() for offered in made.nodes()] == [node.GetID()]


def test_nodes_whose_ids_are_hidden_are_not_offered_and_the_current_one_stays(scene: Any) -> None:
    made = selector(scene, noneEnabled=True)
    kept, hidden = add(scene, "kept"), add(scene, "hidden")
    made.setCurrentNode(kept)
    heard = changes(made)
    made.sortFilterProxyModel().hiddenNodeIDs = [hidden.GetID()]
    assert made.nodes() == [kept] and made.currentNode() is kept and heard == []
    made.setCurrentNode(hidden)
    assert made.currentNode() is None
    made.sortFilterProxyModel().hiddenNodeIDs = []
    assert made.nodeCount() == 2


def test_the_users_choice_is_told_as_an_activation(scene: Any) -> None:
    made = selector(scene, noneEnabled=True)
    add(scene, "first")
    chosen: list[Any] = []
    made.connect("nodeActivated(vtkMRMLNode*)", lambda node: chosen.append(node and node.GetName()))
    made.comboBox().setCurrentIndex(1)
    made.comboBox().activated.emit(1)
    assert chosen == ["first"] and made.currentNode().GetName() == "first"


def test_create_new_makes_a_node_and_selects_it(scene: Any) -> None:
    made = selector(scene)
    made.baseName = "Rarity"
    texts = [made.comboBox().itemText(row) for row in range(made.comboBox().count)]
    made.comboBox().activated.emit(next(row for row, text in enumerate(texts) if text.startswith("Create new")))
    assert made.currentNode().GetName() == "Rarity"


def test_after_an_import_all_nodes_are_offered(scene: Any, tmp_path: Any) -> None:
    import numpy as np
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), None, "saved")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    made = selector(scene)
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert [node.GetName() for node in made.nodes()] == ["saved"]
