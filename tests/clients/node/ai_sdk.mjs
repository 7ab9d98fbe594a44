// The AI SDK against the bundled model: a forced call by chat/completions, and one by responses.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, stepCountIs, tool } from "ai";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const settings = { baseURL, apiKey: "any", name: "llamakit" };
const prompt = "What is the weather in Rome?";
const tools = {
  weather: tool({
    description: "Tell the weather in a city.",
    inputSchema: z.object({ city: z.enum(["Rome", "Oslo"]) }),
    execute: async ({ city }) => `It is sunny in ${city}.`,
  }),
};

for (const chosen of [createOpenAICompatible(settings)(model), createOpenAI(settings).responses(model)]) {
  const asked = { model: chosen, prompt, tools, toolChoice: "required", maxRetries: 0 };
  const { toolCalls } = await generateText(asked);
  const stream = streamText({ ...asked, toolChoice: { type: "tool", toolName: "weather" } });
  const streamed = await stream.toolCalls;
  console.log(toolCalls[0].input.city, streamed[0].input.city);
}
const loop = await generateText({
  model: createOpenAICompatible(settings)(model),
  prompt,
  tools,
  maxRetries: 0,
  stopWhen: stepCountIs(2),
  maxOutputTokens: 200,
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "auto" : "required" }),
});
console.log(loop.steps.length);
