// OpenAI's library for Node: a parsed answer, a tool that it runs itself, and a streamed response.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Rome?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Rome", "Oslo"] } },
  required: ["city"],
};
const description = "Tell the weather in a city.";

const weather = z.object({ city: z.enum(["Rome", "Oslo"]) });
const response_format = zodResponseFormat(weather, "weather");
const parsed = await client.chat.completions.parse({ model, messages, response_format });
console.log(parsed.choices[0].message.parsed.city);

const runner = client.chat.completions.runTools(
  {
    model,
    messages,
    stream: true,
    max_tokens: 100,
    tool_choice: { type: "function", function: { name: "weather" } },
    tools: [
      {
        type: "function",
        function: {
          name: "weather",
          description,
          parameters,
          parse: JSON.parse,
          function: ({ city }) => `It is sunny in ${city}.`,
        },
      },
    ],
  },
  { maxChatCompletions: 1 },
);
const result = await runner.finalFunctionToolCallResult();
console.log(/sunny in (\w+)/.exec(result)[1]);

const stream = client.responses.stream({
  model,
  input: messages,
  tools: [{ type: "function", name: "weather", description, parameters, strict: false }],
  tool_choice: "required",
});
const response = await stream.finalResponse();
console.log(JSON.parse(response.output[0].arguments).city);
