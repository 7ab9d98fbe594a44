"""The merges that mergekit made the expected values of, as its YAML has them.

``base``, ``one`` and ``two`` are the models of seeds 0, 1 and 2; a model is of float32 unless
``dtypes`` says otherwise.
"""

MODELS = {"base": 0, "one": 1, "two": 2}


def of(*names, **parameters):
    return [
        {"model": name, "parameters": {key: values[at] for key, values in parameters.items()}}
        for at, name in enumerate(names)
    ]


MERGES = {
    "linear": {
        "merge_method": "linear",
        "models": of("one", "two", weight=[1.0, 0.3]),
    },
    "linear-sum": {
        "merge_method": "linear",
        "models": of("one", "two", "base", weight=[0.5, "1e-1", [0.0, 1.0]]),
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    },
    "linear-float16": {
        "dtypes": "float16",
        "merge_method": "linear",
        "models": of("one", "two", weight=[0.7, 0.4]),
    },
    "slerp": {
        "merge_method": "slerp",
        "base_model": "one",
        "slices": [
            {
                "sources": [
                    {"model": "one", "layer_range": [0, 4]},
                    {"model": "two", "layer_range": [0, 4]},
                ]
            }
        ],
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                {"value": 0.5},
            ]
        },
    },
    "slerp-bfloat16": {
        "dtypes": "bfloat16",
        "merge_method": "slerp",
        "base_model": "base",
        "models": of("two"),
        "parameters": {"t": 0.25},
    },
    "task-arithmetic": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": of("one", "two", weight=[0.6, [0.2, 0.4, 0.9]]),
        "parameters": {"lambda": 0.8},
    },
    "task-arithmetic-normalized": {
        "dtypes": "bfloat16",
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": of("base", "one", "two", weight=[9.0, 0.6, 0.7]),
        "parameters": {"normalize": True},
    },
    "ties": {
        "merge_method": "ties",
        "base_model": "base",
        "models": of("one", "two", weight=[1.0, 0.5], density=[0.5, [1.0, 0.5, 0.1]]),
        "parameters": {"normalize": True, "int8_mask": True},
    },
    "ties-filters": {
        "merge_method": "ties",
        "base_model": "base",
        "models": of(
            "one",
            "two",
            density=[0.3, 0.0],
            weight=[[{"filter": "mlp", "value": 0.5}, {"value": 0}], 0.7],
        ),
        "parameters": {"normalize": False, "lambda": 1.5, "rescale": True},
        "dtype": "float32",
    },
    "passthrough": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "one", "layer_range": [0, 3]}]},
            {
                "sources": [
                    {
                        "model": "two",
                        "layer_range": [1, 4],
                        "parameters": {"scale": [{"filter": "o_proj", "value": 0.5}, {"value": 1}]},
                    }
                ]
            },
        ],
        "dtype": "float16",
    },
    "ties-slices": {
        "merge_method": "ties",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 2]},
                    {
                        "model": "one",
                        "layer_range": [2, 4],
                        "parameters": {"density": 0.4, "weight": 0.5},
                    },
                    {"model": "two", "layer_range": [1, 3]},
                ],
                "parameters": {"density": 0.6, "weight": 0.9},
            }
        ],
    },
}


def written(merge, folder):
    """Return a merge with the paths of its models, and the dtype that these are of."""
    values = {key: value for key, value in merge.items() if key != "dtypes"}

    def place(value):
        if isinstance(value, dict):
            return {
                key: str(folder / item)
                if key in ("model", "base_model") and isinstance(item, str)
                else place(item)
                for key, item in value.items()
            }
        return [place(item) for item in value] if isinstance(value, list) else value

    return place(values), merge.get("dtypes", "float32")
