/** Texts of the special tokens that templates see. */
export const special = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>", unk_token: "<unk>" };

/** What `strftime_now` sees. */
export const now = "2026-03-05T09:07:03";

/** Conversations as JSON text, because 1.0 and integers beyond 2^53 are nothing that JavaScript's objects hold. */
export const conversations = [
  `{"messages":[{"role":"user","content":"What is 2+2?"},{"role":"assistant","content":"4"}]}`,
  `{"messages":[{"role":"user","content":"What is 2+2?"}],"add_generation_prompt":true}`,
  `{"messages":[{"role":"system","content":" Answer in French. "},{"role":"user","content":"Yes?"},{"role":"assistant","content":"Oui."},{"role":"user","content":"No?"},{"role":"assistant","content":"Non."}]}`,
  `{"messages":[{"role":"assistant","content":"Hello, who are you?"},{"role":"user","content":"A cat."},{"role":"assistant","content":"Meow."}]}`,
  `{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"},{"role":"assistant","content":"c"},{"role":"assistant","content":"d"}]}`,
  `{"messages":[{"role":"user","content":"\\t x\\r\\ny \\u00a0\\u3000"},{"role":"assistant","content":"\\n\\n z 👩‍👩‍👧 é \\u2028 \\n"}]}`,
  `{"messages":[{"role":"user","content":"<|im_end|></s>[INST] {{ x }} {% y %} <think>z</think>"},{"role":"assistant","content":"<think>\\nwhy\\n</think>\\n\\nso"},{"role":"user","content":"and?"},{"role":"assistant","content":"<think>\\nlast\\n</think>\\n\\nend"}]}`,
  `{"messages":[{"role":"user","content":"Turn it on."}],"tools":[{"type":"function","function":{"name":"switch","description":"It's a \\"switch\\" & <more>.","parameters":{"type":"object","properties":{"level":{"type":["number","null"],"minimum":0.0,"maximum":1.0,"default":1e0},"id":{"type":"integer","enum":[1,12345678901234567890]},"tags":{"type":"array","items":{"type":"string"}}},"required":["level"]}}}],"add_generation_prompt":true}`,
  `{"messages":[{"role":"user","content":"Turn it on."},{"role":"assistant","content":null,"tool_calls":[{"id":"abc123def","type":"function","function":{"name":"switch","arguments":{"level":1.0,"id":12345678901234567890,"tags":["é","b"],"10":null,"2":true}}}]},{"role":"tool","content":"{\\"ok\\": true}","tool_call_id":"abc123def","name":"switch"},{"role":"assistant","content":"Done."}],"tools":[{"type":"function","function":{"name":"switch","description":"","parameters":{"type":"object","properties":{"level":{"type":"number"}}}}}]}`,
  `{"messages":[{"role":"user","content":"Both."},{"role":"assistant","content":"","tool_calls":[{"id":"aaaaaaaa1","type":"function","function":{"name":"a","arguments":{}}},{"id":"aaaaaaaa2","type":"function","function":{"name":"b","arguments":{"x":[1,2.50,{"y":null}]}}}]},{"role":"tool","content":"1","tool_call_id":"aaaaaaaa1"},{"role":"tool","content":"2","tool_call_id":"aaaaaaaa2"},{"role":"assistant","content":"Both done."}],"tools":[]}`,
  `{"messages":[{"role":"user","content":"Think."},{"role":"assistant","content":"Thought.","reasoning_content":"hm","thinking":"hm"},{"role":"user","content":"More."},{"role":"assistant","content":"More thought.","reasoning_content":"hmm","thinking":"hmm"}],"enable_thinking":true}`,
  `{"messages":[{"role":"user","content":"Think not."}],"enable_thinking":false,"reasoning_effort":"low","add_generation_prompt":true}`,
  `{"messages":[{"role":"user","content":[{"type":"text","text":"One, "},{"type":"text","text":"two."}]},{"role":"assistant","content":[{"type":"text","text":"Three."}]}]}`,
  `{"messages":[{"role":"user","content":"Read."}],"documents":[{"title":"T","text":"Some text."},{"title":"U","text":"More."}],"add_generation_prompt":true}`,
  `{"messages":[{"role":"narrator","content":"x"}]}`,
  `{"messages":[{"role":"user"},{"role":"assistant","content":""}]}`,
  `{"messages":[{"role":"system","content":"s"},{"role":"system","content":"t"},{"role":"user","content":"u"},{"role":"assistant","content":"v"}]}`,
  `{"messages":[{"role":"user","content":7},{"role":"assistant","content":1.0}]}`,
];
