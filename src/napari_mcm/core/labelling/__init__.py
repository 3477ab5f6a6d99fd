"""Label patches, train a classifier on them, and measure the areas of its classes.

Labels are of squares of slides (:class:`LabelSet`), kept in a label file. A classifier
(:func:`fit_classifier`) is a logistic regression on the stored features of the labelled
patches, fitted in milliseconds; with it every patch of a cohort gets a class or is
unsure (:func:`patch_probabilities`), and the classes get areas (:func:`class_areas`).
:func:`choose_next` says which patches to label next.
"""

import lazy_loader

# Labels can be read without SciPy, which takes longer to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "areas": ["UNSURE_LABEL", "ClassArea", "class_areas", "total_areas"],
        "classifier": [
            "CALIBRATED_FROM",
            "NO_FEATURES",
            "UNSURE",
            "PatchClassifier",
            "fit_classifier",
            "with_origin",
        ],
        "classifier_file": ["load_classifier", "save_classifier"],
        "config": ["ClassifierConfig"],
        "files": ["is_label_file", "read_labels", "write_labels"],
        "held_out": ["HeldOutAccuracy", "held_out_accuracy"],
        "label_set": [
            "SOURCES",
            "LabelClass",
            "LabelSet",
            "LabelSource",
            "PatchLabel",
            "Place",
            "labels_of_rows",
            "next_class",
        ],
        "maps": ["features_of_rows", "patch_probabilities", "prepare_maps"],
        "merging": ["Disagreement", "merge_labels"],
        "placing": ["PlacedLabels", "place_labels", "rows_of_labels"],
        "selection": ["STRATEGIES", "Strategy", "choose_next"],
    },
)
