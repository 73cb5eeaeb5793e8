"""The agent for microboards: MicroPython, an MQTT 3.1.1 client of its own, a heap of 192 KB.

Written from docs/protocol alone: nothing here imports the rest of the kit, so that the folder can be copied onto a
board under any name. MicroPython's dialect explains what looks odd beside the other rooms: no ``typing``, ``pathlib``,
``dataclasses`` or ``match``; times are whole milliseconds, because floats have 24 bits on most boards.

    wire      messages, topics, manifests, frames: bytes to words and back
    mqtt      the client; frames go from the socket to the flash without being held
    flash     artifacts, two model slots, and a state that a power cut does not spoil
    agent     plans, downloads, offers, receipts: messages and the time in, callbacks out
    network   the program of a board: a fixed encoder in float32, layer by layer
    head      trains the last layer of the heads in place
    data      a folder of .npy files as samples
    int8      the default of the hook ``infer``: int8 networks out of a .tflite file; for it tflite and flatbuffer
              (the file), steps (its operators one by one), fixed and ends (integers and real numbers), and the
              operators: dense, layers, moves, pairs, pointwise, softmax; dot, or dot_native in machine code, is
              their inner loop. Modules are small: to compile one takes 0.2 KB a line, on a board that has trained
    secure    TLS: whom to believe, and who we are; renewal and x509 get and check the next certificate
    weights   a file of tensors, read as far as it is needed
    deploy    tries a model in its slot, and goes back to the one before
    device    one board: its loop, and what carries out a plan
    settings  what is wrong with the configuration
    boot      loads all this so that the memory stays in one piece
"""
