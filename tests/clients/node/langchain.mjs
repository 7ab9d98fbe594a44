// LangChain for Node: a forced call, whole and streamed, and structured output.

import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const chat = new ChatOpenAI({ model, apiKey: "any", maxRetries: 0, configuration: { baseURL } });
const question = "What is the weather in Rome?";
const schema = z.object({ city: z.enum(["Rome", "Oslo"]) });
const weather = tool(({ city }) => `It is sunny in ${city}.`, {
  name: "weather",
  description: "Tell the weather in a city.",
  schema,
});

const answer = await chat.bindTools([weather], { tool_choice: "any" }).invoke(question);
console.log(answer.tool_calls[0].args.city);

let whole;
for await (const chunk of await chat.bindTools([weather], { tool_choice: "weather" }).stream(question)) {
  whole = whole ? whole.concat(chunk) : chunk;
}
console.log(whole.tool_calls[0].args.city);

console.log((await chat.withStructuredOutput(schema, { method: "jsonSchema" }).invoke(question)).city);
