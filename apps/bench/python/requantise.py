"""A GGUF file with its matrices in another type, by the gguf package's own quantiser: what llama.cpp and Lowrank are compared on.

    python requantise.py FROM.gguf TO.gguf Q8_0
"""
import sys

import gguf
from gguf.quants import dequantize, quantize


def main() -> None:
    source, target, name = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    kind = gguf.GGMLQuantizationType[name]
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value_type, *element = field.types
        writer.add_key_value(key, field.contents(), value_type, element[0] if element else None)
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
            continue
        # The embedding, which is the head too, stays as it is: llama.cpp looks rows up in it.
        own = tensor.tensor_type if tensor.name == "token_embd.weight" else kind
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        writer.add_tensor(tensor.name, quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
