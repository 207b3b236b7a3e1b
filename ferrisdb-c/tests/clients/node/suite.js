// The unmodified package `foundationdb` of npm on a FerrisDB cluster. Prints one line for each case, ends with an error at the first
// that fails.
//
//   npm install foundationdb@2.0.1
//   FDB_CLUSTER_FILE=... LD_LIBRARY_PATH=<folder of libfdb_c.so> NODE_PATH=node_modules node suite.js
//
// The package brings a compiled addon, which is linked with libfdb_c.so under API version 720.
"use strict";

const assert = require("assert");
const fdb = require("foundationdb");

fdb.setAPIVersion(720);
const raw = fdb.open();
const db = raw
    .withKeyEncoding(fdb.encoders.tuple)
    .withValueEncoding(fdb.encoders.json);

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const soon = (promise, what) =>
    Promise.race([promise, sleep(10000).then(() => assert.fail(`${what} has not happened`))]);

async function codeOf(promise) {
    try {
        await promise;
    } catch (error) {
        return error.code;
    }
    return 0;
}

const cases = {
    async a_transaction_reads_what_it_wrote_and_others_after_the_commit() {
        await db.doTn(async tn => {
            tn.set(["hello", 1], { text: "world" });
            assert.deepStrictEqual(await tn.get(["hello", 1]), { text: "world" });
            assert.strictEqual(await db.get(["hello", 1]), undefined);
        });
        assert.deepStrictEqual(await db.get(["hello", 1]), { text: "world" });
        await db.clear(["hello", 1]);
        assert.strictEqual(await db.get(["hello", 1]), undefined);
    },

    async ranges_come_in_both_directions_and_in_parts() {
        await db.doTn(async tn => {
            for (let i = 0; i < 300; i++) tn.set(["range", i], "x".repeat(50));
        });
        const numbers = [...Array(300).keys()];
        for (const mode of [-2, -1, 1, 2, 3, 4]) {
            for (const reverse of [false, true]) {
                const rows = await db.doTn(tn =>
                    tn.getRangeAll(["range"], undefined, { streamingMode: mode, reverse }));
                const found = rows.map(([key]) => key[1]);
                assert.deepStrictEqual(found, reverse ? [...numbers].reverse() : numbers);
            }
        }
        const some = await db.getRangeAll(["range", 10], ["range", 20], { limit: 5 });
        assert.deepStrictEqual(some.map(([key]) => key[1]), [10, 11, 12, 13, 14]);
        await db.doTn(async tn => {
            tn.clearRange(["range", 5], ["range", 295]);
            let count = 0;
            for await (const batch of tn.getRangeBatch(["range"])) count += batch.length;
            assert.strictEqual(count, 10);
        });
        assert(await db.doTn(tn => tn.getEstimatedRangeSizeBytes(["range"], ["range", 2000])) >= 0);
    },

    async atomic_operations_compute_in_the_database() {
        const one = Buffer.from([1, 0, 0, 0]);
        await Promise.all([...Array(30)].map(() => raw.add("counter", one)));
        assert.strictEqual((await raw.get("counter")).readUInt32LE(), 30);
        await raw.bitXor("counter", Buffer.from([255, 0, 0, 0]));
        assert.strictEqual((await raw.get("counter")).readUInt32LE(), 30 ^ 255);
        await raw.byteMax("text", "b");
        await raw.byteMax("text", "abc");
        assert.strictEqual((await raw.get("text")).toString(), "b");
    },

    async versionstamps_order_keys() {
        const stamps = [];
        for (let round = 0; round < 3; round++) {
            const key = ["log", fdb.tuple.unboundVersionstamp()];
            const stamp = await db.doTn(async tn => {
                tn.setVersionstampedKey(key, round);
                return tn.getVersionstamp();
            });
            stamps.push((await stamp.promise).toString("hex"));
            assert.strictEqual(key[1].value.subarray(0, 10).toString("hex"), stamps[round]);
        }
        const rows = await db.getRangeAll(["log"]);
        assert.deepStrictEqual(rows.map(([, value]) => value), [0, 1, 2]);
        const found = rows.map(([key]) => key[1].value.subarray(0, 10).toString("hex"));
        assert.deepStrictEqual(found, stamps);
    },

    async conflicts_are_found_and_retried() {
        let attempts = 0;
        await db.set("conflict", 0);
        await db.doTn(async tn => {
            const value = await tn.get("conflict");
            if (attempts++ < 2) await db.set("conflict", value + 10);
            tn.set("conflict", value + 1);
        });
        assert.strictEqual(attempts, 3);
        assert.strictEqual(await db.get("conflict"), 21);
        const alone = raw.rawCreateTransaction();
        await alone.get("conflict2");
        await raw.set("conflict2", "x");
        alone.set("y", "");
        assert.strictEqual(await codeOf(alone.rawCommit()), 1020);
    },

    async counters_from_many() {
        await db.set("sum", 0);
        const add = () => db.doTn(async tn => tn.set("sum", (await tn.get("sum")) + 1));
        await Promise.all([...Array(10)].map(async () => {
            for (let i = 0; i < 5; i++) await add();
        }));
        assert.strictEqual(await db.get("sum"), 50);
    },

    async watches_fire_on_changes() {
        await db.set("watched", 1);
        const watch = await db.getAndWatch("watched");
        assert.strictEqual(watch.value, 1);
        await db.set("watched", 1);
        const early = await Promise.race([watch.promise, sleep(300).then(() => "nothing yet")]);
        assert.strictEqual(early, "nothing yet");
        await db.set("watched", 2);
        assert.strictEqual(await soon(watch.promise, "the change"), true);
        const given_up = await db.doTn(async tn => tn.watch("watched"));
        given_up.cancel();
        assert.strictEqual(await soon(given_up.promise, "the end"), false);
    },

    async directories() {
        const users = await fdb.directory.createOrOpen(raw, ["app", "users"]);
        const inside = raw.at(users).withKeyEncoding(fdb.encoders.tuple);
        await inside.set([1], "ada");
        assert.deepStrictEqual((await fdb.directory.listAll(raw, ["app"])).map(String), ["users"]);
        const moved = await fdb.directory.move(raw, ["app", "users"], ["app", "people"]);
        const value = await raw.at(moved).withKeyEncoding(fdb.encoders.tuple).get([1]);
        assert.strictEqual(value.toString(), "ada");
        assert(await fdb.directory.remove(raw, ["app"]));
        assert(!(await fdb.directory.exists(raw, ["app", "people"])));
    },

    async errors_have_their_numbers() {
        assert.strictEqual(await codeOf(raw.set("k", Buffer.alloc(100001))), 2103);
        assert.strictEqual(await codeOf(raw.set(Buffer.alloc(10001), "")), 2102);
        assert.strictEqual(await codeOf(raw.get("\u00ff")), 0, "two bytes in UTF-8");
        assert.strictEqual(await codeOf(raw.get(Buffer.from([255, 1]))), 2004);
        const late = raw.doTn(async tn => {
            await tn.get("k");
            await sleep(60);
            await tn.get("k");
        }, { timeout: 30 });
        assert.strictEqual(await codeOf(late), 1031);
    },
};

async function main() {
    await raw.clearRange(Buffer.alloc(0), Buffer.from([255]));
    let count = 0;
    for (const [name, run] of Object.entries(cases)) {
        const began = Date.now();
        try {
            await run();
        } catch (error) {
            console.error(`FAILED ${name}:`, error);
            process.exit(1);
        }
        console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(2)} s)`);
        count++;
    }
    console.log(`${count} cases passed, npm foundationdb API 720`);
    raw.close();
}

main();
